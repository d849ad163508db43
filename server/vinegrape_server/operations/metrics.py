"""The metrics of the operations port."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from vinegrape_server.host.processes import find_workers
from vinegrape_server.operations.torchserve_metrics import TorchServeMetrics
from vinegrape_server.operations.worker_metrics import WorkerMetrics
from vinegrape_server.plan import Plan
from vinegrape_server.torchserve.client import TorchServeClient


def make_registry(
    plan: Plan, java_pid: int, worker_metrics: WorkerMetrics, client: TorchServeClient
) -> CollectorRegistry:
    """Return a registry of all metrics: the workers', the model's, the processes' and TorchServe's.

    Args:
        plan: what is served.
        java_pid: process id of TorchServe's Java process.
        worker_metrics: the workers' metrics.
        client: reads TorchServe's own metrics.
    """
    registry = CollectorRegistry()
    registry.register(worker_metrics)
    registry.register(ModelInfo(plan))
    registry.register(ResidentMemory(java_pid))
    registry.register(TorchServeMetrics(client.metrics_text))
    return registry


class ModelInfo(Collector):
    """The gauge `vinegrape_model_info`, whose labels describe the served model."""

    def __init__(self, plan: Plan) -> None:
        metadata, worker = plan.archive.metadata, plan.settings.worker
        self._labels = {
            "name": metadata.name,
            "version": metadata.version,
            "architecture": metadata.architecture,
            "data_digest": metadata.data_digest,
            "backend": worker.backend,
            "device": worker.device,
        }

    def collect(self) -> Iterator[Metric]:
        """Yield the gauge."""
        metric = GaugeMetricFamily("vinegrape_model_info", "The served model", labels=list(self._labels))
        metric.add_metric(list(self._labels.values()), 1)
        yield metric


class ResidentMemory(Collector):
    """The gauge `vinegrape_resident_memory_bytes` by kind of process. Memory that two of them share counts twice."""

    def __init__(self, java_pid: int) -> None:
        self._processes = {"supervisor": psutil.Process(), "frontend": psutil.Process(java_pid)}

    def collect(self) -> Iterator[Metric]:
        """Yield the gauge."""
        metric = GaugeMetricFamily(
            "vinegrape_resident_memory_bytes",
            "Resident memory of the supervisor, of TorchServe's frontend (Java) and of all its workers",
            labels=["process"],
        )
        for name, process in self._processes.items():
            metric.add_metric([name], _resident_bytes(process))
        metric.add_metric(["workers"], sum(map(_resident_bytes, find_workers(self._processes["frontend"]))))
        yield metric


def _resident_bytes(process: psutil.Process) -> int:
    try:
        resident: int = process.memory_info().rss
    except psutil.Error:  # the process has just ended
        return 0
    return resident
