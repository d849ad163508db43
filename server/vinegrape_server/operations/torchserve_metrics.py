"""TorchServe's own metrics, translated to the names, units and labels that Prometheus recommends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from vinegrape_server.torchserve.own_requests import OwnRequests


@dataclass(frozen=True)
class _Source:
    """One of TorchServe's metrics.

    Attributes:
        unit: the factor from TorchServe's unit to ours, such as 1e-6 from microseconds to seconds.
        labels: TorchServe's labels to keep, and our names for them.
        fixed: labels to add, and their values.
        own: returns how much of the value comes from this server's own requests.
    """

    unit: float = 1
    labels: dict[str, str] = field(default_factory=dict)
    fixed: dict[str, str] = field(default_factory=dict)
    own: Callable[[OwnRequests], int] = lambda _: 0


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

    @property
    def counts(self) -> bool:
        """Whether it is a counter."""
        return self.kind is CounterMetricFamily


_GPU = {"DeviceId": "gpu"}

# TorchServe's times are left out. Its counters of latency also contain this server's self-checks. HandlerTime,
# PredictionTime, QueueTime and WorkerThreadTime hold only the last value, while our histograms count every value. The
# labels Level and Hostname are left out: each has only one value.
_FAMILIES = {
    "ts_inference_requests": _Family(
        CounterMetricFamily,
        "Requests for the model that TorchServe has received, refused ones included",
        {"ts_inference_requests_total": _Source(own=OwnRequests.predictions)},
    ),
    "ts_http_responses": _Family(
        CounterMetricFamily,
        "HTTP responses of TorchServe, by the first digit of their status",
        {
            f"Requests{digit}XX": _Source(
                fixed={"status": f"{digit}xx"}, own=partial(OwnRequests.responses, digit=digit)
            )
            for digit in "245"
        },
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
    """Reads TorchServe's metrics, subtracts this server's own requests, and translates them.

    Args:
        fetch: returns the text of TorchServe's metrics port. If it raises an OSError, `collect` yields no metrics.
        own_requests: this server's own requests.
    """

    def __init__(self, fetch: Callable[[], str], own_requests: OwnRequests) -> None:
        self._fetch = fetch
        self._own_requests = own_requests
        self._counted: dict[tuple[str, ...], float] = {}  # the last value of each counter

    def collect(self) -> Iterator[Metric]:
        """Yield each metric that TorchServe has."""
        try:
            text = self._fetch()
        except OSError:
            return
        families = {family.name: family for family in text_string_to_metric_families(text)}
        metrics = (self._translate(name, family, families) for name, family in _FAMILIES.items())
        yield from (metric for metric in metrics if metric.samples)

    def _translate(self, name: str, family: _Family, families: dict[str, Metric]) -> Metric:
        """Sum TorchServe's samples to one of our metrics, which has no samples if TorchServe has none."""
        (labels,) = {(*source.labels.values(), *source.fixed) for source in family.sources.values()}
        total: dict[tuple[str, ...], float] = {}
        for origin, source in family.sources.items():
            metric = families.get(origin.removesuffix("_total"))
            own = source.own(self._own_requests)
            for sample in metric.samples if metric else ():
                values = (*(sample.labels[label] for label in source.labels), *source.fixed.values())
                # Several samples may differ only in labels that are dropped, such as the version in the client's URL
                total[values] = total.get(values, -own) + sample.value * source.unit
        translated = family.kind(name, family.help, labels=labels)
        for values, value in total.items():
            translated.add_metric(values, self._never_lower(name, values, value) if family.counts else value)
        return translated

    def _never_lower(self, name: str, labels: tuple[str, ...], value: float) -> float:
        """Return the value of a counter; its previous value if an own request in flight makes it appear lower."""
        series = name, *labels
        self._counted[series] = max(value, self._counted.get(series, 0))
        return self._counted[series]
