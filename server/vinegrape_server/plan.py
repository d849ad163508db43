"""Settings, archive and machine settled into what TorchServe will be started with."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import math
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from vinegrape_handler.errors import SettingError
from vinegrape_handler.settings import WorkerSettings
from vinegrape_handler.weights import choose_backend
from vinegrape_server.archive_info import ArchiveInfo
from vinegrape_server.settings import ServeSettings


@dataclass(frozen=True)
class Plan:
    """Nothing in it is "auto" or 0 any more.

    Attributes:
        archive: to serve.
        settings: as given, with the workers' settled.
        workers: processes.
        batch_size: requests that go to a worker together.
        gpus: of this machine that are used; 0 on CPU.
    """

    archive: ArchiveInfo
    settings: ServeSettings
    workers: int
    batch_size: int
    gpus: int

    @property
    def worker(self) -> WorkerSettings:
        """The workers' settings."""
        return self.settings.worker


def make_plan(settings: ServeSettings, archive: ArchiveInfo, gpus: int, torch_installed: bool) -> Plan:
    """Settle what is "auto", and refuse what cannot work here.

    Args:
        settings: as given.
        archive: to serve.
        gpus: that this machine has.
        torch_installed: in this environment.

    Raises:
        SettingError: says what to set instead.
    """
    worker = settings.worker
    gpus = gpus if _use_gpu(worker, archive, gpus, torch_installed) else 0
    backend = choose_backend(worker.backend, archive.backends, on_gpu=gpus > 0)
    if backend == "torchscript" and not torch_installed:
        raise SettingError(
            "backend torchscript needs torch, which is not installed here. Run: pip install -c constraints.txt "
            "-e '.[torchscript]', or set backend to onnx_int8."
        )
    settled = dataclasses.replace(worker, backend=backend, device="cuda" if gpus else "cpu")
    return Plan(
        archive,
        dataclasses.replace(settings, worker=settled),
        workers=settings.workers or gpus or count_cores(),
        batch_size=settings.batch_size or (32 if gpus else 1),
        gpus=gpus,
    )


def _use_gpu(worker: WorkerSettings, archive: ArchiveInfo, gpus: int, torch_installed: bool) -> bool:
    if worker.device == "cuda" and gpus == 0:
        raise SettingError(
            "device is cuda, but no GPU can be used here: nvidia-smi or torch shows none. Set device to cpu."
        )
    if worker.device != "auto":
        return worker.device == "cuda"
    runs_torch = worker.backend == "torchscript" or (worker.backend == "auto" and "torchscript" in archive.backends)
    return gpus > 0 and torch_installed and runs_torch


def count_gpus(ask_torch: bool) -> int:
    """GPUs that can be used: those that NVIDIA's driver lists, or, of these, those that the installed torch sees."""
    if shutil.which("nvidia-smi") is None:
        return 0
    if ask_torch:
        return int(_output(sys.executable, "-c", "import torch; print(torch.cuda.device_count())") or 0)
    return sum(line.startswith("GPU ") for line in _output("nvidia-smi", "-L").splitlines())


def _output(*command: str) -> str:
    """What a command prints; nothing if it fails or hangs."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""


def count_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that this process may use: those it may run on, or as many as a container's limit pays for, rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return math.ceil(min(cores, _cpu_limit(cgroup)))


def _cpu_limit(cgroup: Path) -> float:
    """Microseconds of processor time a microsecond that a control group allows (version 2, then 1), or infinity."""
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        with contextlib.suppress(OSError, ValueError):
            quota, period = " ".join((cgroup / file).read_text() for file in files).split()
            if quota not in ("max", "-1"):
                return int(quota) / int(period)
    return math.inf


def torch_installed() -> bool:
    """Whether torch can be imported here, without importing it."""
    return importlib.util.find_spec("torch") is not None
