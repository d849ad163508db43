"""What the operating system says of processes."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import sys

import psutil

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent dies, even by a signal that nobody can handle."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def lives(pid: int) -> bool:
    """Whether a process runs; one that only waits for its parent to notice its end does not."""
    try:
        running: bool = psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    return running


def find_workers(java: psutil.Process) -> list[psutil.Process]:
    """TorchServe's workers, and not what else it starts, such as what measures the machine once a minute."""
    found = []
    with contextlib.suppress(psutil.Error):  # Java has just ended
        for process in java.children():
            with contextlib.suppress(psutil.Error):  # or this one
                if any("model_service_worker" in word for word in process.cmdline()):
                    found.append(process)
    return found
