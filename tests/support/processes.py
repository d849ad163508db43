"""Start programs for a test, and end them with all processes that they started."""

import contextlib
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

from vinegrape_server.host.processes import die_with_parent, find_workers

STOP_S = 30  # much longer than any program needs to end; limits the time of a failing test

_SERVER_WORDS = (
    "vinegrape serve",
    "org.pytorch.serve.ModelServer",
    "model_service_worker",
    "vinegrape_server.gateway",
    "haproxy.cfg",
)
# Descendants by the process id of their program. psutil no longer finds them once the program is killed.
_families: defaultdict[int, set[psutil.Process]] = defaultdict(set)


@contextlib.contextmanager
def running(arguments: list[str], **options) -> Iterator[subprocess.Popen[str]]:
    """Run a program until the block ends, whether the block succeeds or fails.

    The program has a session of its own, so that Ctrl-C in a terminal reaches pytest only. The kernel kills the
    program if pytest itself is killed.

    Args:
        arguments: the program and its arguments.
        options: of `subprocess.Popen`.
    """
    process = subprocess.Popen(arguments, text=True, start_new_session=True, preexec_fn=die_with_parent, **options)
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """End a program without waiting for its requests, and kill those of its descendants that still run."""
    descendants(process)
    # vinegrape stops at once after a second signal, unless that follows within a second
    for timeout_s in (1.1, STOP_S):
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout_s)
    process.kill()
    process.wait()
    kill(psutil.wait_procs(_families[process.pid], timeout=5)[1])


def kill(processes: Iterable[psutil.Process]) -> None:
    """Kill processes; ignore those that have ended."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return all descendants of a process, and remember them for `_end`; empty if the process has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        family: list[psutil.Process] = psutil.Process(process.pid).children(recursive=True)
        _families[process.pid].update(family)
        return family
    return []


def java(process: subprocess.Popen[str]) -> psutil.Process:
    """The Java process of a running `vinegrape serve`."""
    return child(process, "org.pytorch.serve.ModelServer")


def temporary_folder(process: subprocess.Popen[str]) -> Path:
    """The private folder of a running `vinegrape serve`."""
    (option,) = [part for part in java(process).cmdline() if part.startswith("-Djava.io.tmpdir=")]
    return Path(option.partition("=")[2])


def gateway(process: subprocess.Popen[str]) -> psutil.Process:
    """The gateway of a running `vinegrape serve`."""
    return child(process, "vinegrape_server.gateway")


def haproxy(process: subprocess.Popen[str]) -> psutil.Process:
    """The HAProxy of a running `vinegrape serve --edge`."""
    return child(process, "haproxy.cfg")


def child(process: subprocess.Popen[str], word: str) -> psutil.Process:
    """The child process of a program whose command line contains a word."""
    (found,) = [each for each in psutil.Process(process.pid).children() if word in command_line(each)]
    return found


def workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The worker processes of a running `vinegrape serve`."""
    return find_workers(java(process))


def command_line(process: psutil.Process) -> str:
    """The program and its arguments, separated by spaces; empty if the process has just ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def assert_all_ended(processes: list[psutil.Process]) -> None:
    """Wait until processes have ended; fail if one still runs after `STOP_S`."""
    _, alive = psutil.wait_procs(processes, timeout=STOP_S)
    assert not alive


def running_servers() -> list[psutil.Process]:
    """Return the processes of servers that this Python process has started and that do not end within 5 s.

    psutil does not find the descendants of a killed program, but `descendants` may have remembered them.
    """
    started = set(psutil.Process().children(recursive=True)).union(*_families.values())
    servers = [process for process in started if any(words in command_line(process) for words in _SERVER_WORDS)]
    alive: list[psutil.Process] = psutil.wait_procs(servers, timeout=5)[1]
    return alive
