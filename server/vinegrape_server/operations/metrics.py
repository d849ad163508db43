"""The metrics of the operations port."""

from __future__ import annotations

import os
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
from vinegrape_server.plan import Plan
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
    plan: Plan, status: Status, edge_metrics: Collector | None = None, feedback: FeedbackStore | None = None
) -> CollectorRegistry:
    """Return a registry of all metrics: the server's, the workers', the model's, the processes' and TorchServe's.

    Args:
        plan: what is served.
        status: reports on the running server.
        edge_metrics: the metrics of the edge, if there is one.
        feedback: the feedback to the served model.
    """
    registry = CollectorRegistry()
    workers = _with_drift(plan, status.worker_metrics)
    registry.register(Summed([workers, *([edge_metrics] if edge_metrics else [])]))
    registry.register(ModelInfo(plan))
    if feedback:
        registry.register(FeedbackMetrics(feedback, plan.archive.metadata.version))
    registry.register(ServerMetrics(status))
    registry.register(TorchServeMetrics(status.client.metrics_text, status.client.own_requests))
    return registry


def _with_drift(plan: Plan, workers: Collector) -> Collector:
    """Return the workers' metrics with their drift from the model's reference, if it has one."""
    reference, settings = plan.archive.metadata.reference, plan.settings
    if reference is None:
        return workers
    return DriftMetrics(workers, reference, Window(settings.drift_window, settings.drift_window_hours * 3600))


class Summed(Collector):
    """Adds the metrics of several collectors: both the gateway and the edge count responses."""

    def __init__(self, collectors: Sequence[Collector]) -> None:
        self._collectors = collectors

    def collect(self) -> Iterator[Metric]:
        """Yield each metric once."""
        return iter(sum_metrics(metric for each in self._collectors for metric in each.collect()).values())


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
