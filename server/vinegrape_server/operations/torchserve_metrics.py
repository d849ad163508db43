"""TorchServe's own metrics, translated to the names, units and labels that Prometheus recommends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector


@dataclass(frozen=True)
class _Source:
    """One of TorchServe's metrics.

    Attributes:
        unit: the factor from TorchServe's unit to ours, such as 1e-6 from microseconds to seconds.
        labels: TorchServe's labels to keep, and our names for them.
        fixed: labels to add, and their values.
    """

    unit: float = 1
    labels: dict[str, str] = field(default_factory=dict)
    fixed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Family:
    """One of our metrics.

    Attributes:
        kind: counter or gauge.
        help: the metric's help text.
        sources: TorchServe's metrics whose values it sums, by name.
    """

    kind: type[CounterMetricFamily] | type[GaugeMetricFamily]
    help: str
    sources: dict[str, _Source]


_GPU = {"DeviceId": "gpu"}

# HandlerTime and PredictionTime of TorchServe 0.12 are left out: they hold only the last value, while our histograms
# count every value. The labels Level and Hostname are left out: each has only one value.
_FAMILIES = {
    "ts_inference_requests": _Family(
        CounterMetricFamily,
        "Requests for the model over REST and gRPC, refused ones included",
        {"ts_inference_requests_total": _Source()},
    ),
    "ts_inference_latency_seconds": _Family(
        CounterMetricFamily,
        "Total time from the arrival of requests in TorchServe to their responses",
        {"ts_inference_latency_microseconds": _Source(1e-6)},
    ),
    "ts_queue_latency_seconds": _Family(
        CounterMetricFamily,
        "Total time from the arrival of requests in TorchServe to a worker",
        {"ts_queue_latency_microseconds": _Source(1e-6)},
    ),
    "ts_http_responses": _Family(
        CounterMetricFamily,
        "HTTP responses of all ports of TorchServe, by the first digit of their status",
        {f"Requests{digit}XX": _Source(fixed={"status": f"{digit}xx"}) for digit in "245"},
    ),
    "ts_last_queue_time_seconds": _Family(
        GaugeMetricFamily, "Time of the last request in the queue", {"QueueTime": _Source(1e-3)}
    ),
    "ts_last_worker_thread_time_seconds": _Family(
        GaugeMetricFamily,
        "Time that TorchServe itself added to the last batch, beside the time in the worker",
        {"WorkerThreadTime": _Source(1e-3)},
    ),
    "ts_worker_load_time_seconds": _Family(
        GaugeMetricFamily,
        "Start time of a worker",
        {"WorkerLoadTime": _Source(1e-3, {"WorkerName": "worker"})},
    ),
    "ts_host_cpu_utilization_ratio": _Family(
        GaugeMetricFamily, "CPU utilization of the machine, measured once per minute", {"CPUUtilization": _Source(0.01)}
    ),
    "ts_host_memory_bytes": _Family(
        GaugeMetricFamily,
        "Memory of the machine, measured once per minute",
        {
            "MemoryUsed": _Source(2**20, fixed={"state": "used"}),
            "MemoryAvailable": _Source(2**20, fixed={"state": "available"}),
        },
    ),
    "ts_host_disk_bytes": _Family(
        GaugeMetricFamily,
        "Disk space of the machine, measured once per minute",
        {
            "DiskUsage": _Source(2**30, fixed={"state": "used"}),
            "DiskAvailable": _Source(2**30, fixed={"state": "available"}),
        },
    ),
    "ts_host_gpu_utilization_ratio": _Family(
        GaugeMetricFamily, "Utilization of a GPU, measured once per minute", {"GPUUtilization": _Source(0.01, _GPU)}
    ),
    "ts_host_gpu_memory_bytes": _Family(
        GaugeMetricFamily,
        "Memory of a GPU, measured once per minute",
        {"GPUMemoryUsed": _Source(2**20, _GPU, {"state": "used"})},
    ),
}


class TorchServeMetrics(Collector):
    """Reads TorchServe's metrics and translates them.

    Args:
        fetch: returns the text of TorchServe's metrics port. If it raises an OSError, `collect` yields no metrics.
    """

    def __init__(self, fetch: Callable[[], str]) -> None:
        self._fetch = fetch

    def collect(self) -> Iterator[Metric]:
        """Yield each metric that TorchServe has."""
        try:
            text = self._fetch()
        except OSError:
            return
        families = {family.name: family for family in text_string_to_metric_families(text)}
        metrics = (_translate(name, family, families) for name, family in _FAMILIES.items())
        yield from (metric for metric in metrics if metric.samples)


def _translate(name: str, family: _Family, families: dict[str, Metric]) -> Metric:
    """Sum TorchServe's samples to one of our metrics, which has no samples if TorchServe has none."""
    (labels,) = {(*source.labels.values(), *source.fixed) for source in family.sources.values()}
    total: dict[tuple[str, ...], float] = {}
    for origin, source in family.sources.items():
        metric = families.get(origin.removesuffix("_total"))
        for sample in metric.samples if metric else ():
            values = (*(sample.labels[label] for label in source.labels), *source.fixed.values())
            # Several samples may differ only in labels that are dropped, such as the version in the client's URL
            total[values] = total.get(values, 0) + sample.value * source.unit
    translated = family.kind(name, family.help, labels=labels)
    for values, value in total.items():
        translated.add_metric(values, value)
    return translated
