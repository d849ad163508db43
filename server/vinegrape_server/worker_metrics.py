"""The numbers that the workers keep in files, added up."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil
from prometheus_client import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

_DEAD = "dead"  # in the place of a process id


class WorkerMetrics(Collector):
    """All workers' metrics as one; those of workers that died stay counted, and their files do not pile up.

    prometheus_client writes a file a kind of metric and process: `counter_123.db`, `gauge_livesum_123.db`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._collector = MultiProcessCollector(None, str(folder))
        self._lock = threading.Lock()

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        with self._lock:
            self._fold_dead()
            yield from self._collector.collect()

    def gauge(self, name: str) -> float:
        """The sum of a gauge without labels over the workers that live; 0 if none has it."""
        with self._lock:
            self._fold_dead()
            files = [str(path) for path in self._folder.glob("gauge_*.db")]
            metrics: Iterable[Metric] = self._collector.merge(files)
        return sum(sample.value for metric in metrics for sample in metric.samples if sample.name == name)

    def _fold_dead(self) -> None:
        """Add the counters of workers that died to one file, which is nobody's, and forget their gauges."""
        for path in self._folder.glob("*.db"):
            kind, _, pid = path.stem.rpartition("_")
            if pid == _DEAD or lives(int(pid)):
                continue
            if not kind.startswith("gauge"):
                _add(path, self._folder / f"{kind}_{_DEAD}.db")
            path.unlink()


def lives(pid: int) -> bool:
    """Whether a process runs; one that only waits for its parent to notice its end does not."""
    try:
        running: bool = psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    return running


def _add(source: Path, target: Path) -> None:
    """Add the values of one of prometheus_client's files to those of another."""
    total = MmapedDict(str(target))
    try:
        for key, value, timestamp, _ in MmapedDict.read_all_values_from_file(str(source)):
            total.write_value(key, total.read_value(key)[0] + value, timestamp)
    finally:
        total.close()
