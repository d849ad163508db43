"""The metrics of the operations port while TorchServe does not respond."""

import os

import pytest

from tests.support.archives import plan
from tests.support.metadata import METADATA
from vinegrape_loadtests.local.server import free_ports
from vinegrape_server.operations.metrics import make_registry
from vinegrape_server.operations.worker_metrics import WorkerMetrics
from vinegrape_server.plan import Served
from vinegrape_server.torchserve.client import TorchServeClient

NO_PROCESS = 2**22 + 1  # Linux gives no larger process id than 2**22


class Status:
    """A server whose only process is this one; nothing listens on the socket of TorchServe's metrics."""

    def __init__(self, served, folder) -> None:
        self.worker_metrics = WorkerMetrics(folder)
        self.client = TorchServeClient(Served(served), folder)
        self.reason = ""

    def why_not_ready(self) -> str:
        return self.reason

    def pids(self) -> dict[str, list[int]]:
        return {"frontend": [os.getpid()], "workers": [os.getpid()] * 2, "gateway": [NO_PROCESS]}

    def restarts(self) -> dict[str, int]:
        return {"gateway": 3}


@pytest.fixture
def status(tmp_path) -> Status:
    return Status(plan(**free_ports()), tmp_path)


@pytest.fixture
def registry(status):
    return make_registry(Served(plan(**free_ports())), status)


def test_the_model_is_described_by_labels(registry):
    labels = {
        "name": METADATA.name, "version": METADATA.version, "architecture": METADATA.architecture,
        "data_digest": METADATA.data_digest, "backend": "onnx_int8", "device": "cpu",
    }  # fmt: skip
    assert registry.get_sample_value("vinegrape_model_info", labels) == 1


def test_memory_is_reported_by_kind_of_process(registry):
    def mib(process: str) -> float:
        return registry.get_sample_value("vinegrape_resident_memory_bytes", {"process": process}) / 2**20

    assert 10 < mib("supervisor") == pytest.approx(mib("frontend"), abs=10)
    assert mib("workers") == pytest.approx(2 * mib("frontend"), abs=10)
    assert mib("gateway") == 0  # it has just ended


def test_readiness_is_a_metric(registry, status):
    assert registry.get_sample_value("vinegrape_ready") == 1
    status.reason = "starting"
    assert registry.get_sample_value("vinegrape_ready") == 0


def test_restarts_are_counted_by_process(registry):
    assert registry.get_sample_value("vinegrape_process_restarts_total", {"process": "gateway"}) == 3


def test_without_torchserve_its_metrics_are_missing_and_the_others_are_not(registry):
    names = {metric.name for metric in registry.collect()}
    assert not any(name.startswith("ts_") for name in names)
    assert {"vinegrape_workers_ready", "vinegrape_worker_deaths"} <= names
