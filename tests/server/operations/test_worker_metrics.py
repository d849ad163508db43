"""Metrics of real processes that start and end like workers."""

import os
import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry

from vinegrape_server.operations.worker_metrics import WorkerMetrics

_WORKER = """
import sys
from vinegrape_handler.metrics import Metrics

metrics = Metrics(("Ak", "Nazli"))
metrics.workers_ready.set(1)
for line in sys.stdin:
    metrics.predictions.labels(line.strip(), "").inc()
    metrics.confidence.observe(0.75)
    print("counted", flush=True)
"""


class Worker:
    """A process that counts one prediction for each label that it reads."""

    def __init__(self, folder):
        self.process = subprocess.Popen(
            [sys.executable, "-c", _WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)},
        )  # fmt: skip

    def count(self, label):
        print(label, file=self.process.stdin, flush=True)
        assert self.process.stdout.readline() == "counted\n"

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def start(tmp_path):
    """Start workers; at the end of the test, kill them."""
    workers = []

    def start_one() -> Worker:
        workers.append(Worker(tmp_path))
        return workers[-1]

    yield start_one
    for worker in workers:
        worker.kill()
        worker.process.stdin.close()
        worker.process.stdout.close()


@pytest.fixture
def metrics(tmp_path) -> WorkerMetrics:
    return WorkerMetrics(tmp_path)


@pytest.fixture
def registry(metrics) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(metrics)
    return registry


def values(registry) -> dict[str, float]:
    return {
        "Ak": registry.get_sample_value("vinegrape_predictions_total", {"label": "Ak", "version": ""}),
        "Nazli": registry.get_sample_value("vinegrape_predictions_total", {"label": "Nazli", "version": ""}),
        "confidence": registry.get_sample_value("vinegrape_confidence_sum", {"version": ""}),
        "up to 0.7": registry.get_sample_value("vinegrape_confidence_bucket", {"le": "0.7", "version": ""}),
        "up to 0.8": registry.get_sample_value("vinegrape_confidence_bucket", {"le": "0.8", "version": ""}),
        "ready": registry.get_sample_value("vinegrape_workers_ready"),
    }


def expected(ak, nazli, ready) -> dict[str, float | None]:
    total = ak + nazli
    return {
        "Ak": ak, "Nazli": nazli, "confidence": 0.75 * total, "up to 0.7": 0, "up to 0.8": total, "ready": ready,
    }  # fmt: skip


def test_workers_are_summed_and_ended_ones_stay_counted(registry, start):
    first, second = start(), start()
    for label in ("Ak", "Ak", "Nazli"):
        first.count(label)
    second.count("Nazli")
    assert values(registry) == expected(2, 2, ready=2)
    first.kill()
    assert values(registry) == expected(2, 2, ready=1)
    second.count("Ak")
    assert values(registry) == expected(3, 2, ready=1)
    second.kill()
    assert values(registry) == expected(3, 2, ready=0)
    assert values(registry) == expected(3, 2, ready=0)  # a second reading counts nothing twice


def test_the_files_of_ended_workers_are_removed(registry, tmp_path, start):
    """Their counts are in no other file: with a full disk, writing to a file of prometheus_client kills the process."""
    for count in range(1, 4):
        worker = start()
        worker.count("Ak")
        worker.kill()
        assert values(registry) == expected(count, 0, ready=0)
    assert not list(tmp_path.iterdir())


def test_a_worker_that_the_server_ends_itself_is_no_death(registry, metrics, start):
    for expected_end in (True, False):
        worker = start()
        worker.count("Ak")
        if expected_end:
            metrics.expect_end([worker.process.pid])
        worker.kill()
        assert registry.get_sample_value("vinegrape_worker_deaths_total") == (0 if expected_end else 1)


def test_a_gauge_sums_the_running_workers(metrics, start):
    assert metrics.gauge("vinegrape_workers_ready") == 0
    first, second = start(), start()
    first.count("Ak")
    second.count("Ak")
    assert metrics.gauge("vinegrape_workers_ready") == 2
    first.kill()
    assert metrics.gauge("vinegrape_workers_ready") == 1


def test_the_gauges_of_each_worker(metrics, start):
    first, second = start(), start()
    first.count("Ak")
    second.count("Ak")
    gauges = metrics.gauges_by_process()
    assert set(gauges) == {first.process.pid, second.process.pid}
    assert gauges[first.process.pid]["vinegrape_workers_ready"] == 1
    assert gauges[first.process.pid]["vinegrape_batch_finished_seconds"] == 0


def test_gauges_of_single_workers_are_not_published(registry, start):
    """Each new worker would add series."""
    start().count("Ak")
    published = {metric.name for metric in registry.collect()}
    assert "vinegrape_workers_ready" in published
    assert not any(name.startswith("vinegrape_batch_started") for name in published)
    assert not any(name.startswith("vinegrape_batch_finished") for name in published)


def test_ended_workers_are_counted(registry, start):
    for deaths in range(3):
        assert registry.get_sample_value("vinegrape_worker_deaths_total") == deaths
        worker = start()
        worker.count("Ak")
        worker.kill()


def test_an_empty_file_is_skipped(registry, tmp_path, start):
    """prometheus_client first creates an empty file. Its process may be killed before the file grows."""
    worker, dead = start(), start()
    worker.count("Ak")
    dead.kill()
    values(registry)
    for pid in (os.getpid(), dead.process.pid):
        (tmp_path / f"counter_{pid}.db").touch()
        (tmp_path / f"gauge_livesum_{pid}.db").touch()
    assert values(registry) == expected(1, 0, ready=1)
    assert (tmp_path / f"counter_{os.getpid()}.db").exists()
    assert not (tmp_path / f"counter_{dead.process.pid}.db").exists()


def test_gauges_are_0_without_workers(registry):
    assert registry.get_sample_value("vinegrape_workers_ready") == 0
    assert registry.get_sample_value("vinegrape_batches_in_progress") == 0
