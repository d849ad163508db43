"""The plan of one server: its settings, fitted to the archive and to this machine."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from vinegrape_handler.errors import SettingError
from vinegrape_handler.settings import WorkerSettings
from vinegrape_handler.weights import choose_backend
from vinegrape_server.archive_info import ArchiveInfo
from vinegrape_server.host.machine import count_cores
from vinegrape_server.settings import ServeSettings


@dataclass(frozen=True)
class Plan:
    """What TorchServe is started with.

    Attributes:
        archive: the archive to serve. Its metadata has the OOD threshold of the settings, if they have one.
        settings: all settings; every "auto" and every 0 that stands for an automatic value is replaced.
        gpus: number of GPUs to use; 0 on a CPU.
    """

    archive: ArchiveInfo
    settings: ServeSettings
    gpus: int

    @property
    def slots(self) -> int:
        """Requests that TorchServe holds at the same time behind the edge: for each worker one batch, and one more.

        The worker must find the next batch as soon as it has finished one. Further requests wait in the edge's queue,
        where those of clients that have left are removed.
        """
        return 2 * self.settings.workers * self.settings.batch_size


class Served:
    """What is served now. A swap of the model replaces the plan, so nothing keeps a plan of its own.

    Attributes:
        plan: of the model that answers.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    @property
    def version(self) -> str:
        """The version of the model that answers."""
        return self.plan.archive.metadata.version


def make_plan(settings: ServeSettings, archive: ArchiveInfo, gpus: int, torch_installed: bool) -> Plan:
    """Replace the automatic settings by values for this archive and this machine.

    Args:
        settings: the settings of the user.
        archive: the archive to serve.
        gpus: number of GPUs of this machine.
        torch_installed: whether torch is installed in this environment.

    Raises:
        SettingError: a setting cannot work with this archive or on this machine.
    """
    gpus = gpus if _use_gpu(settings.worker, archive, gpus, torch_installed) else 0
    backend = choose_backend(settings.worker.backend, archive.backends, on_gpu=gpus > 0)
    if backend == "torchscript" and not torch_installed:
        raise SettingError(
            "backend torchscript needs torch, which is not installed. Run: pip install -c constraints.txt "
            "-e '.[torchscript]', or set backend to onnx_int8."
        )
    worker = dataclasses.replace(
        settings.worker,
        backend=backend,
        device="cuda" if gpus else "cpu",
        # The same defaults as in the handler: a GPU's only worker would wait for decoded images with 1 thread
        decode_threads=settings.worker.decode_threads or (8 if gpus else 1),
    )
    workers = settings.workers or gpus or count_cores()
    batch_size = settings.batch_size or (32 if gpus else 1)
    fitted = dataclasses.replace(
        settings,
        worker=worker,
        workers=workers,
        batch_size=batch_size,
        queue_size=settings.queue_size or (8 * workers * batch_size if settings.edge else 100),
    )
    threshold = worker.choose_threshold(archive.metadata.ood_threshold)
    metadata = dataclasses.replace(archive.metadata, ood_threshold=threshold)
    return Plan(dataclasses.replace(archive, metadata=metadata), fitted, gpus)


def _use_gpu(worker: WorkerSettings, archive: ArchiveInfo, gpus: int, torch_installed: bool) -> bool:
    if worker.device == "cuda" and gpus == 0:
        raise SettingError("device is cuda, but nvidia-smi and torch find no GPU that can be used. Set device to cpu.")
    if worker.device != "auto":
        return worker.device == "cuda"
    runs_torch = worker.backend == "torchscript" or (worker.backend == "auto" and "torchscript" in archive.backends)
    return gpus > 0 and torch_installed and runs_torch
