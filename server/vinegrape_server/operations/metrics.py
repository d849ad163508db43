"""Everything that `/metrics` of the operations port says."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from http import HTTPStatus

import psutil
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from vinegrape_server.host.http import get
from vinegrape_server.host.processes import find_workers
from vinegrape_server.operations.torchserve_metrics import TorchServeMetrics
from vinegrape_server.plan import Plan
from vinegrape_server.settings import LOOPBACK
from vinegrape_server.supervisor import Supervisor

_FETCH_S = 2


def make_registry(plan: Plan, server: Supervisor) -> CollectorRegistry:
    """The workers' metrics, TorchServe's, the model's and the processes'."""
    registry = CollectorRegistry()
    registry.register(server.worker_metrics)
    registry.register(ModelInfo(plan))
    registry.register(ResidentMemory(server.pid))
    registry.register(TorchServeMetrics(partial(_fetch, plan.settings.metrics_port)))
    return registry


class ModelInfo(Collector):
    """Which model is served, and how."""

    def __init__(self, plan: Plan) -> None:
        metadata = plan.archive.metadata
        self._labels = {
            "name": metadata.name,
            "version": metadata.version,
            "architecture": metadata.architecture,
            "data_digest": metadata.data_digest,
            "backend": plan.worker.backend,
            "device": plan.worker.device,
        }

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        metric = GaugeMetricFamily("vinegrape_model_info", "The model that is served", labels=list(self._labels))
        metric.add_metric(list(self._labels.values()), 1)
        yield metric


class ResidentMemory(Collector):
    """Memory of each kind of process; pages that processes share are counted in each."""

    def __init__(self, java: int) -> None:
        self._processes = {"supervisor": psutil.Process(), "frontend": psutil.Process(java)}

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        metric = GaugeMetricFamily(
            "vinegrape_resident_memory_bytes",
            "Memory of the supervisor, of TorchServe's frontend (Java) and of all its workers",
            labels=["process"],
        )
        for name, process in self._processes.items():
            metric.add_metric([name], _resident(process))
        metric.add_metric(["workers"], sum(map(_resident, find_workers(self._processes["frontend"]))))
        yield metric


def _resident(process: psutil.Process) -> int:
    try:
        resident: int = process.memory_info().rss
    except psutil.Error:  # it has just ended
        return 0
    return resident


def _fetch(port: int) -> str:
    answer = get(LOOPBACK, port, "/metrics", _FETCH_S)
    if answer.status != HTTPStatus.OK:
        raise ConnectionError(f"TorchServe's metrics port answers with status {answer.status}")
    return answer.body.decode()
