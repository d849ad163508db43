"""What the operating system says of a server's processes: the time they took of processors, and their memory."""

from __future__ import annotations

import contextlib
import time
from collections import Counter

import psutil

# At rest: for so long, less than this share of a processor
_IDLE_S, _IDLE_SHARE = 0.3, 0.1


def family(pid: int) -> list[psutil.Process]:
    """A process and all that it started."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def cpu_seconds(pid: int) -> Counter[str]:
    """Seconds of processors that each kind of process of a family has taken, from /proc."""
    seconds: Counter[str] = Counter()
    for process in family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            seconds[_kind(process)] += times.user + times.system
    return seconds


def wait_until_idle(pid: int) -> None:
    """Return once a family has done what it was asked: servers go on with requests whose clients have gone."""
    before = cpu_seconds(pid).total()
    while True:
        time.sleep(_IDLE_S)
        now = cpu_seconds(pid).total()
        if now - before <= _IDLE_SHARE * _IDLE_S:
            return
        before = now


def pss_mib(pid: int) -> list[tuple[str, float]]:
    """Kind and memory of each process of a family, a page that several share by its share: MiB."""
    found = []
    for process in family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append((_kind(process), process.memory_full_info().pss / 2**20))
    return found


def _kind(process: psutil.Process) -> str:
    if process.name() == "java":
        return "Java"
    words = process.cmdline()
    if any("model_service_worker" in word for word in words) or "--multiprocessing-fork" in words:
        return "worker"
    return "supervisor"
