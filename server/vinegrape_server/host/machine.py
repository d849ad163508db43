"""The CPU cores, GPUs and packages of this machine."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path


def count_gpus(use_torch: bool) -> int:
    """Count the GPUs that can be used.

    Args:
        use_torch: count the GPUs that the installed torch can use, instead of those that `nvidia-smi` lists.
    """
    if shutil.which("nvidia-smi") is None:
        return 0
    if use_torch:
        return int(_output(sys.executable, "-c", "import torch; print(torch.cuda.device_count())") or 0)
    return sum(line.startswith("GPU ") for line in _output("nvidia-smi", "-L").splitlines())


def count_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Count the CPU cores that this process may use: its CPU affinity, or its container's CPU limit if that is lower.

    A limit of 1.5 cores counts as 2.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return math.ceil(min(cores, _cpu_limit(cgroup)))


def torch_installed() -> bool:
    """Return whether torch can be imported, without importing it."""
    return importlib.util.find_spec("torch") is not None


def _cpu_limit(cgroup: Path) -> float:
    """The CPU limit of a control group (version 2, then 1) in cores; infinity if there is no limit."""
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        with contextlib.suppress(OSError, ValueError):
            quota, period = " ".join((cgroup / file).read_text() for file in files).split()
            if quota not in ("max", "-1"):
                return int(quota) / int(period)
    return math.inf


def _output(*command: str) -> str:
    """The standard output of a command; empty if the command fails or takes longer than 30 s."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
