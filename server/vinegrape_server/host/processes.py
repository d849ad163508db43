"""Processes of this machine."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import sys

import psutil

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent ends, even if SIGKILL ends the parent. Linux only."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def is_running(pid: int) -> bool:
    """Return whether a process runs; False for a zombie."""
    try:
        running: bool = psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    return running


def has_clients(pid: int, port: int) -> bool:
    """Return whether a process has connections of clients on a port; True if this cannot be found out."""
    try:
        connections = psutil.Process(pid).net_connections("tcp")
    except psutil.NoSuchProcess:
        return False
    except (psutil.Error, OSError):
        return True
    return any(each.laddr.port == port and each.status != psutil.CONN_LISTEN for each in connections)


def find_workers(java: psutil.Process) -> list[psutil.Process]:
    """Return the worker processes of TorchServe.

    TorchServe's Java process starts other children too, such as a script that measures the machine once per minute.
    """
    workers = []
    with contextlib.suppress(psutil.Error):  # the Java process has just ended
        for process in java.children():
            with contextlib.suppress(psutil.Error):  # this child has just ended
                if any("model_service_worker" in argument for argument in process.cmdline()):
                    workers.append(process)
    return workers
