"""The metrics of the operations port while TorchServe does not respond."""

import os

import pytest

from tests.support.archives import plan
from tests.support.metadata import METADATA
from vinegrape_loadtests.local.server import free_ports
from vinegrape_server.operations.metrics import make_registry
from vinegrape_server.operations.worker_metrics import WorkerMetrics
from vinegrape_server.torchserve.client import TorchServeClient


@pytest.fixture
def registry(tmp_path):
    """This process stands in for TorchServe's Java process; nothing listens on the socket of its metrics."""
    served = plan(**free_ports())
    return make_registry(served, os.getpid(), WorkerMetrics(tmp_path), TorchServeClient(served, tmp_path))


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
    assert mib("workers") == 0  # this process has no workers


def test_without_torchserve_its_metrics_are_missing_and_the_others_are_not(registry):
    names = {metric.name for metric in registry.collect()}
    assert not any(name.startswith("ts_") for name in names)
    assert {"vinegrape_workers_ready", "vinegrape_worker_deaths"} <= names
