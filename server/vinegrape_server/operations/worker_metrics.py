"""The metrics of the workers and of the gateway, summed over all their processes."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from vinegrape_handler.contract import BATCH_FINISHED, BATCH_STARTED, BATCHES_IN_PROGRESS, WORKERS_READY
from vinegrape_server.host.processes import is_running

_SUMMED_GAUGES = "gauge_livesum"
# Series per process, which say nothing after the process has ended; `gauges_by_process` reads them
_INTERNAL = {BATCH_STARTED.name, BATCH_FINISHED.name}


class WorkerMetrics(Collector):
    """Sums the metrics that processes keep in files. It keeps the counts of ended processes and removes their files.

    In its multiprocess mode, prometheus_client writes one file per kind of metric and process: `counter_123.db`,
    `gauge_livesum_123.db`. The counts of ended processes are kept in memory: prometheus_client maps its files into
    memory, and the kernel kills a process that writes to such a file on a full disk.

    Args:
        folder: the folder of these files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._deaths = 0
        self._expected: set[int] = set()  # process ids whose end is no death
        self._ended: dict[str, Metric] = {}  # by name

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics, and the number of workers that have ended."""
        with self._lock:
            self._fold_ended()
            merged = sum_metrics([*self._ended.values(), *_merge(self._files("*"))])
        for name, description in (WORKERS_READY, BATCHES_IN_PROGRESS):
            merged.setdefault(name, GaugeMetricFamily(name, description, value=0))
        yield from (metric for name, metric in merged.items() if name not in _INTERNAL)
        yield CounterMetricFamily("vinegrape_worker_deaths", "Workers that have ended, for any reason", self._deaths)

    def expect_end(self, pids: Iterable[int]) -> None:
        """Do not count the end of these workers as deaths: the server ends them itself."""
        with self._lock:
            self._expected.update(pids)

    def gauge(self, name: str) -> float:
        """Return the sum of a gauge without labels over the running workers; 0 if no worker has it."""
        return sum(gauges.get(name, 0) for gauges in self.gauges_by_process().values())

    def gauges_by_process(self) -> dict[int, dict[str, float]]:
        """Return the gauges without labels of each running worker: values by name, by process id."""
        with self._lock:
            self._fold_ended()
            processes: dict[int, dict[str, float]] = {}
            for path in self._files("gauge*"):
                gauges = processes.setdefault(_pid(path), {})
                for metric in _merge([path]):
                    gauges.update({sample.name: sample.value for sample in metric.samples})
            return processes

    def _files(self, kind: str) -> list[Path]:
        """Return files of running processes.

        prometheus_client creates a file before it sets the file's size: an empty file cannot be read yet.
        """
        return [path for path in self._folder.glob(f"{kind}_*.db") if path.stat().st_size]

    def _fold_ended(self) -> None:
        """Add the counts of ended processes to those in memory, and remove their files."""
        for path in self._folder.glob("*.db"):
            if is_running(_pid(path)):
                continue
            kind = path.stem.rpartition("_")[0]
            metrics = list(_merge([path])) if path.stat().st_size else []
            if not kind.startswith("gauge"):
                self._ended = sum_metrics([*self._ended.values(), *metrics])
            elif kind == _SUMMED_GAUGES and any(metric.name == WORKERS_READY.name for metric in metrics):
                self._deaths += _pid(path) not in self._expected
                self._expected.discard(_pid(path))  # a later worker may get the same process id
            path.unlink()


def _pid(path: Path) -> int:
    return int(path.stem.rpartition("_")[2])


def _merge(paths: Iterable[Path]) -> Iterable[Metric]:
    merged: Iterable[Metric] = MultiProcessCollector.merge([str(path) for path in paths])
    return merged


def sum_metrics(metrics: Iterable[Metric]) -> dict[str, Metric]:
    """Add metrics of the same name, sample by sample. Return them by name."""
    total: dict[str, Metric] = {}
    values: dict[tuple[str, str, frozenset[tuple[str, str]]], float] = {}
    for metric in metrics:
        summed = total.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
        for sample in metric.samples:
            key = metric.name, sample.name, frozenset(sample.labels.items())
            if key not in values:
                summed.samples.append(sample)
            values[key] = values.get(key, 0) + sample.value
    for metric in total.values():
        metric.samples = [
            sample._replace(value=values[metric.name, sample.name, frozenset(sample.labels.items())])
            for sample in metric.samples
        ]
    return total
