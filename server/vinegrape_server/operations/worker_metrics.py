"""The numbers that the workers keep in files, added up."""

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
from vinegrape_server.host.processes import lives

_DEAD = "dead"  # in the place of a process id


class WorkerMetrics(Collector):
    """All workers' metrics as one; those of workers that died stay counted, and their files do not pile up.

    prometheus_client writes a file a kind of metric and process: `counter_123.db`, `gauge_livesum_123.db`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._deaths = 0

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        merged = {metric.name: metric for metric in self._merge("*")}
        for name, meaning in (WORKERS_READY, BATCHES_IN_PROGRESS):
            merged.setdefault(name, GaugeMetricFamily(name, meaning, value=0))
        yield from merged.values()
        yield CounterMetricFamily("vinegrape_worker_deaths", "Workers that ended, for whatever reason", self._deaths)

    def gauge(self, name: str) -> float:
        """The sum of a gauge without labels over the workers that live; 0 if none has it."""
        return sum(sample.value for metric in self._merge("gauge") for sample in metric.samples if sample.name == name)

    def _merge(self, kind: str) -> Iterable[Metric]:
        with self._lock:
            self._fold_dead()
            # prometheus_client makes a file, and then gives it its size: an empty one cannot be read yet
            files = [str(path) for path in self._folder.glob(f"{kind}_*.db") if path.stat().st_size]
            merged: Iterable[Metric] = MultiProcessCollector.merge(files)
        return merged

    def _fold_dead(self) -> None:
        """Add the counters of workers that died to one file, which is nobody's, and forget their gauges."""
        for path in self._folder.glob("*.db"):
            kind, _, pid = path.stem.rpartition("_")
            if pid == _DEAD or lives(int(pid)):
                continue
            # Out of sight first: whatever fails from here on, nothing is counted twice
            folding = path.rename(path.with_suffix(".folding"))
            if kind.startswith("gauge"):  # one file a worker
                self._deaths += 1
            elif folding.stat().st_size:
                _add(folding, self._folder / f"{kind}_{_DEAD}.db")
            folding.unlink()


def _add(source: Path, target: Path) -> None:
    """Add the values of one of prometheus_client's files to those of another."""
    total = MmapedDict(str(target))
    try:
        for key, value, timestamp, _ in MmapedDict.read_all_values_from_file(str(source)):
            total.write_value(key, total.read_value(key)[0] + value, timestamp)
    finally:
        total.close()
