"""The metrics of the operations port."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import psutil
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from vinegrape_server.drift.metrics import DriftMetrics
from vinegrape_server.drift.window import Window
from vinegrape_server.feedback.metrics import FeedbackMetrics
from vinegrape_server.feedback.store import FeedbackStore
from vinegrape_server.operations.torchserve_metrics import TorchServeMetrics
from vinegrape_server.operations.worker_metrics import WorkerMetrics, sum_metrics
from vinegrape_server.plan import Plan, Served
from vinegrape_server.torchserve.client import TorchServeClient


class Status(Protocol):
    """Reports on a running server.

    Attributes:
        worker_metrics: the metrics of its workers and of its gateway.
        client: reads TorchServe's own metrics.
    """

    worker_metrics: WorkerMetrics
    client: TorchServeClient

    def why_not_ready(self) -> str:
        """Return the reason why it is not ready; empty if it is."""

    def pids(self) -> Mapping[str, Sequence[int]]:
        """Return the ids of its processes by kind, without this process."""

    def restarts(self) -> Mapping[str, int]:
        """Return how many times each process was started again, by name."""


def make_registry(
    served: Served, status: Status, edge_metrics: Collector | None = None, feedback: FeedbackStore | None = None
) -> CollectorRegistry:
    """Return a registry of all metrics: the server's, the workers', the model's, the processes' and TorchServe's.

    Args:
        served: what is served.
        status: reports on the running server.
        edge_metrics: the metrics of the edge, if there is one.
        feedback: the feedback to the served model.
    """
    registry = CollectorRegistry()
    workers = WithDrift(served, status.worker_metrics)
    registry.register(Summed([workers, *([edge_metrics] if edge_metrics else [])]))
    registry.register(ModelInfo(served))
    if feedback:
        registry.register(FeedbackMetrics(feedback, served))
    registry.register(ServerMetrics(status))
    registry.register(TorchServeMetrics(status.client.metrics_text, status.client.own_requests))
    return registry


class WithDrift(Collector):
    """Yields the workers' metrics with their drift from the reference of the served model, if it has one."""

    def __init__(self, served: Served, workers: Collector) -> None:
        self._served = served
        self._workers = workers
        self._lock = threading.Lock()
        self._version, self._metrics = served.version, self._make(served.plan)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics. After a swap of the model, the window begins again."""
        with self._lock:
            plan = self._served.plan
            if plan.archive.metadata.version != self._version:
                self._version, self._metrics = plan.archive.metadata.version, self._make(plan)
            metrics = self._metrics
        yield from metrics.collect()

    def _make(self, plan: Plan) -> Collector:
        metadata, settings = plan.archive.metadata, plan.settings
        if metadata.reference is None:
            return self._workers
        window = Window(settings.drift_window, settings.drift_window_hours * 3600)
        return DriftMetrics(self._workers, metadata.reference, window, metadata.version)


class Summed(Collector):
    """Adds the metrics of several collectors: both the gateway and the edge count responses."""

    def __init__(self, collectors: Sequence[Collector]) -> None:
        self._collectors = collectors

    def collect(self) -> Iterator[Metric]:
        """Yield each metric once."""
        return iter(sum_metrics(metric for each in self._collectors for metric in each.collect()).values())


class ModelInfo(Collector):
    """The gauge `vinegrape_model_info`, whose labels describe the served model."""

    def __init__(self, served: Served) -> None:
        self._served = served

    def collect(self) -> Iterator[Metric]:
        """Yield the gauge."""
        metadata, worker = self._served.plan.archive.metadata, self._served.plan.settings.worker
        labels = {
            "name": metadata.name,
            "version": metadata.version,
            "architecture": metadata.architecture,
            "data_digest": metadata.data_digest,
            "backend": worker.backend,
            "device": worker.device,
        }
        metric = GaugeMetricFamily("vinegrape_model_info", "The served model", labels=list(labels))
        metric.add_metric(list(labels.values()), 1)
        yield metric


class ServerMetrics(Collector):
    """Whether the server is ready, and the memory and the restarts of its processes."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        ready = not self._status.why_not_ready()
        yield GaugeMetricFamily("vinegrape_ready", "1 if /readyz responds with 200, otherwise 0", value=ready)
        memory = GaugeMetricFamily(
            "vinegrape_resident_memory_bytes",
            "Resident memory by process: the supervisor, TorchServe's frontend (Java), all its workers, the gateway, "
            "the edge. Memory that two processes share counts twice",
            labels=["process"],
        )
        for name, pids in {"supervisor": [os.getpid()], **self._status.pids()}.items():
            memory.add_metric([name], sum(map(_resident_bytes, pids)))
        yield memory
        restarts = CounterMetricFamily(
            "vinegrape_process_restarts", "Restarts of a process that had ended by itself", labels=["process"]
        )
        for name, number in self._status.restarts().items():
            restarts.add_metric([name], number)
        yield restarts


def _resident_bytes(pid: int) -> int:
    try:
        resident: int = psutil.Process(pid).memory_info().rss
    except psutil.Error:  # the process has just ended
        return 0
    return resident
