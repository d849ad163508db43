"""The workers' metrics, summed over all workers."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from vinegrape_handler.contract import BATCHES_IN_PROGRESS, WORKERS_READY
from vinegrape_server.host.processes import is_running

_DEAD = "dead"  # replaces the process id in a file's name
_COUNTED = "gauge_livesum"  # a worker has several files of gauges, and exactly one of this kind


class WorkerMetrics(Collector):
    """Sums the metrics that the workers keep in files. It keeps the counts of ended workers and removes their files.

    In its multiprocess mode, prometheus_client writes one file per kind of metric and process: `counter_123.db`,
    `gauge_livesum_123.db`.

    Args:
        folder: the folder of these files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._deaths = 0

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics of the workers, and the number of workers that have ended."""
        merged = {metric.name: metric for metric in self._merge("*")}
        for name, description in (WORKERS_READY, BATCHES_IN_PROGRESS):
            merged.setdefault(name, GaugeMetricFamily(name, description, value=0))
        yield from merged.values()
        yield CounterMetricFamily("vinegrape_worker_deaths", "Workers that have ended, for any reason", self._deaths)

    def gauge(self, name: str) -> float:
        """Return the sum of a gauge without labels over the running workers; 0 if no worker has it."""
        return sum(sample.value for metric in self._merge("gauge") for sample in metric.samples if sample.name == name)

    def _merge(self, kind: str) -> Iterable[Metric]:
        with self._lock:
            self._fold_dead()
            # prometheus_client creates a file before it sets the file's size: an empty file cannot be read yet
            files = [str(path) for path in self._folder.glob(f"{kind}_*.db") if path.stat().st_size]
            merged: Iterable[Metric] = MultiProcessCollector.merge(files)
        return merged

    def _fold_dead(self) -> None:
        """Add the counters of ended workers to one common file, and remove the workers' own files."""
        for path in self._folder.glob("*.db"):
            kind, _, pid = path.stem.rpartition("_")
            if pid == _DEAD or is_running(int(pid)):
                continue
            # Rename the file first: if a later step fails, its counts are lost, but they are never added twice
            folding = path.rename(path.with_suffix(".folding"))
            if kind.startswith("gauge"):
                self._deaths += kind == _COUNTED
            elif folding.stat().st_size:
                _add(folding, self._folder / f"{kind}_{_DEAD}.db")
            folding.unlink()


def _add(source: Path, target: Path) -> None:
    """Add the values of one file of prometheus_client to those of another."""
    total = MmapedDict(str(target))
    try:
        for key, value, timestamp, _ in MmapedDict.read_all_values_from_file(str(source)):
            total.write_value(key, total.read_value(key)[0] + value, timestamp)
    finally:
        total.close()
