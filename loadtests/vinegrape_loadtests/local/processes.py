"""CPU time and memory of a server's processes, by kind: supervisor, Java, worker, gateway, edge."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator

import psutil

from vinegrape_server.host.processes import find_workers

# Processes are idle if together they use at most this share of one core for this time
_IDLE_S, _IDLE_SHARE = 0.3, 0.1

_KIND_OF_PROGRAM = {"java": "Java", "haproxy": "edge"}
_GATEWAY = "vinegrape_server.gateway"  # in the command line of the gateway
_UVICORN_WORKER = "--multiprocessing-fork"  # in the command line of what Python's multiprocessing starts


def cpu_seconds(pid: int) -> Counter[str]:
    """Return the CPU seconds that a process and its descendants have used, by kind."""
    seconds: Counter[str] = Counter()
    for kind, process in _family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            seconds[kind] += times.user + times.system
    return seconds


def wait_until_idle(pid: int) -> None:
    """Wait until a process and its descendants are idle: a server still handles requests of clients that have left."""
    before = cpu_seconds(pid).total()
    while True:
        time.sleep(_IDLE_S)
        now = cpu_seconds(pid).total()
        if now - before <= _IDLE_SHARE * _IDLE_S:
            return
        before = now


def pss_mib(pid: int) -> list[tuple[str, float]]:
    """Return kind and memory of a process and of each descendant.

    The memory is the proportional set size (PSS) in MiB: a page that n processes share counts 1 / n in each.
    """
    memory = []
    for kind, process in _family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            memory.append((kind, process.memory_full_info().pss / 2**20))
    return memory


def _family(pid: int) -> Iterator[tuple[str, psutil.Process]]:
    """Yield a process and each of its descendants, with its kind first."""
    process = psutil.Process(pid)
    family = [process, *process.children(recursive=True)]
    workers = {worker.pid for member in family if _name(member) == "java" for worker in find_workers(member)}
    for member in family:
        yield "worker" if member.pid in workers else _kind(member), member


def _kind(process: psutil.Process) -> str:
    """Return the kind of a process that is no worker of TorchServe."""
    if kind := _KIND_OF_PROGRAM.get(_name(process)):
        return kind
    command_line = _command_line(process)
    if _GATEWAY in command_line:
        return "gateway"
    return "worker" if _UVICORN_WORKER in command_line else "supervisor"


def _name(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess):
        return str(process.name())
    return ""


def _command_line(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        command_line: list[str] = process.cmdline()
        return command_line
    return []
