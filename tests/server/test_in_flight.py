"""`InFlight` reads TorchServe's queue, the workers' gauge and the CPU time."""

import subprocess
import sys

import pytest

from tests.support.archives import plan
from tests.support.server import wait_until
from tests.support.torchserve import standing_in
from vinegrape_loadtests.local.server import free_ports
from vinegrape_server.in_flight import InFlight
from vinegrape_server.operations.worker_metrics import WorkerMetrics
from vinegrape_server.plan import Served
from vinegrape_server.torchserve.client import TorchServeClient

# Waits for a line, then uses a whole core
_JAVA = """
import sys
sys.stdin.readline()
while True:
    pass
"""

_WORKER = """
import sys
from vinegrape_handler.metrics import Metrics



metrics = Metrics(("Ak",))
for line in sys.stdin:
    metrics.batches_in_progress.set(int(line))
    print("set", flush=True)
"""


def start(code: str, **options) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options
    )


@pytest.fixture
def java():
    """A process that stands in for TorchServe's Java process."""
    with start(_JAVA) as process:
        yield process
        process.kill()


@pytest.fixture
def torchserve():
    with standing_in() as stand_in:
        stand_in.set_queue(0)
        yield stand_in


@pytest.fixture
def in_flight(torchserve, java, tmp_path):
    client = TorchServeClient(Served(plan(**{**free_ports(), "management_port": torchserve.port})), tmp_path)
    return InFlight(client, WorkerMetrics(tmp_path), java.pid, max_batch_delay_ms=1)


def test_at_first_requests_may_be_in_flight(in_flight):
    assert not in_flight.none()
    wait_until(in_flight.none)


def test_a_queued_request_is_in_flight(in_flight, torchserve):
    wait_until(in_flight.none)
    torchserve.set_queue(1)
    assert not in_flight.none()
    torchserve.set_queue(0)
    assert not in_flight.none()  # for half a second the request may be on its way to a worker
    wait_until(in_flight.none)


def test_a_batch_in_a_worker_is_in_flight(in_flight, tmp_path, monkeypatch):
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    with start(_WORKER) as worker:
        for batches in (0, 1, 0):
            print(batches, file=worker.stdin, flush=True)
            assert worker.stdout.readline() == "set\n"
            if batches:
                assert not in_flight.none()
            else:
                wait_until(in_flight.none)
        worker.kill()


def test_a_busy_cpu_means_that_a_request_may_be_arriving(in_flight, java):
    wait_until(in_flight.none)
    print(file=java.stdin, flush=True)
    wait_until(lambda: not in_flight.none())


def test_without_a_response_requests_may_be_in_flight(in_flight, torchserve):
    wait_until(in_flight.none)
    torchserve.responses.clear()
    assert not in_flight.none()


def test_after_javas_end_requests_may_be_in_flight(in_flight, java):
    wait_until(in_flight.none)
    java.kill()
    java.wait()
    assert not in_flight.none()
