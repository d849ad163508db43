"""What the operating system says of a server's processes: the time they took of processors, and their memory."""

from __future__ import annotations

import contextlib
from collections import Counter

import psutil


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


def pss_mib(pid: int) -> Counter[str]:
    """Memory of each kind of process of a family, a page that several share by its share: MiB."""
    mib: Counter[str] = Counter()
    for process in family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            mib[_kind(process)] += process.memory_full_info().pss / 2**20
    return mib


def _kind(process: psutil.Process) -> str:
    if process.name() == "java":
        return "Java"
    words = process.cmdline()
    if any("model_service_worker" in word for word in words) or "--multiprocessing-fork" in words:
        return "worker"
    return "supervisor"
