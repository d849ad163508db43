"""TorchServe's own metrics under names, units and labels that Prometheus recommends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector


@dataclass(frozen=True)
class _Source:
    """One of TorchServe's series.

    Attributes:
        unit: its unit in ours: 1e-6 for microseconds in seconds.
        labels: TorchServe's labels that are kept, with our names for them.
        fixed: labels and values that we add.
    """

    unit: float = 1
    labels: dict[str, str] = field(default_factory=dict)
    fixed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Family:
    kind: type[CounterMetricFamily] | type[GaugeMetricFamily]
    help: str
    sources: dict[str, _Source]


_GPU = {"DeviceId": "gpu"}

# TorchServe 0.12 also has HandlerTime and PredictionTime, the last value of what our histograms count, and its labels
# Level and Hostname say nothing of a server that runs alone.
_FAMILIES = {
    "ts_inference_requests": _Family(
        CounterMetricFamily,
        "Requests for the model that reached TorchServe over REST and gRPC, refused ones too",
        {"ts_inference_requests_total": _Source()},
    ),
    "ts_inference_latency_seconds": _Family(
        CounterMetricFamily,
        "From a request's arrival in TorchServe to its answer, summed",
        {"ts_inference_latency_microseconds": _Source(1e-6)},
    ),
    "ts_queue_latency_seconds": _Family(
        CounterMetricFamily,
        "From a request's arrival in TorchServe to a worker, summed",
        {"ts_queue_latency_microseconds": _Source(1e-6)},
    ),
    "ts_http_responses": _Family(
        CounterMetricFamily,
        "HTTP responses of all ports of TorchServe, by the first figure of their status",
        {f"Requests{digit}XX": _Source(fixed={"status": f"{digit}xx"}) for digit in "245"},
    ),
    "ts_last_queue_time_seconds": _Family(
        GaugeMetricFamily, "The last request's time in the queue", {"QueueTime": _Source(1e-3)}
    ),
    "ts_last_worker_thread_time_seconds": _Family(
        GaugeMetricFamily,
        "What TorchServe itself added to the last batch's time in its worker",
        {"WorkerThreadTime": _Source(1e-3)},
    ),
    "ts_worker_load_time_seconds": _Family(
        GaugeMetricFamily,
        "What a worker took to start",
        {"WorkerLoadTime": _Source(1e-3, {"WorkerName": "worker"})},
    ),
    "ts_host_cpu_utilization_ratio": _Family(
        GaugeMetricFamily, "The machine's processors, once a minute", {"CPUUtilization": _Source(0.01)}
    ),
    "ts_host_memory_bytes": _Family(
        GaugeMetricFamily,
        "The machine's memory, once a minute",
        {
            "MemoryUsed": _Source(2**20, fixed={"state": "used"}),
            "MemoryAvailable": _Source(2**20, fixed={"state": "available"}),
        },
    ),
    "ts_host_disk_bytes": _Family(
        GaugeMetricFamily,
        "The machine's disk, once a minute",
        {
            "DiskUsage": _Source(2**30, fixed={"state": "used"}),
            "DiskAvailable": _Source(2**30, fixed={"state": "available"}),
        },
    ),
    "ts_host_gpu_utilization_ratio": _Family(
        GaugeMetricFamily, "A GPU's processors, once a minute", {"GPUUtilization": _Source(0.01, _GPU)}
    ),
    "ts_host_gpu_memory_bytes": _Family(
        GaugeMetricFamily,
        "A GPU's memory, once a minute",
        {"GPUMemoryUsed": _Source(2**20, _GPU, {"state": "used"})},
    ),
}


class TorchServeMetrics(Collector):
    """What TorchServe's metrics port says, translated.

    Args:
        fetch: gives the port's text; raises OSError where it cannot be had, and then there are no such metrics.
    """

    def __init__(self, fetch: Callable[[], str]) -> None:
        self._fetch = fetch

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        try:
            text = self._fetch()
        except OSError:
            return
        said = {family.name: family for family in text_string_to_metric_families(text)}
        metrics = (_translate(name, family, said) for name, family in _FAMILIES.items())
        yield from (metric for metric in metrics if metric.samples)


def _translate(name: str, family: _Family, said: dict[str, Metric]) -> Metric:
    (labels,) = {(*source.labels.values(), *source.fixed) for source in family.sources.values()}
    total: dict[tuple[str, ...], float] = {}
    for origin, source in family.sources.items():
        found = said.get(origin.removesuffix("_total"))
        for sample in found.samples if found else ():
            values = (*(sample.labels[label] for label in source.labels), *source.fixed.values())
            # by labels that are not kept, such as the version that a client named, there may be several
            total[values] = total.get(values, 0) + sample.value * source.unit
    metric = family.kind(name, family.help, labels=labels)
    for values, value in total.items():
        metric.add_metric(values, value)
    return metric
