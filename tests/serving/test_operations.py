"""Probes and metrics of a running server: exact counts, and a real Prometheus that reads them."""

import subprocess
from collections.abc import Iterator

import pytest

from tests.conftest import program
from tests.support.payloads import instances
from tests.support.prometheus import scraping
from tests.support.repack import read_metadata, read_self_check
from tests.support.server import Live, command, listens, run_command, serving, wait_until

# Requests of each kind over REST; one fewer of each over gRPC. A JSON body has two images and an invalid instance
VALID, INVALID, JSON = 5, 3, 2
REQUESTS = 2 * (VALID + INVALID + JSON) - 3
JSON_BODIES = 2 * JSON - 1
CLASSIFIED = 2 * VALID - 1 + 2 * JSON_BODIES  # images


@pytest.fixture(scope="module")
def counted_server(tiny_archive, tmp_path_factory) -> Iterator[Live]:
    """A server of two workers that has responded to a known number of requests. Tests must not send it more."""
    _, (image, *_) = read_self_check(tiny_archive)
    requests = [(image, VALID), (b"no image", INVALID), (instances(image, image, {"b64": "?"}), JSON)]
    with serving(tiny_archive, tmp_path_factory.mktemp("counted") / "log", workers=2) as live:
        for content, number in requests:
            live.at_once(live.post, [content] * number)
            live.at_once(live.call, [content] * (number - 1))
        yield live


def test_every_request_and_image_is_counted_once(counted_server):
    metrics = counted_server.metrics()
    requests = {key[1:]: value for key, value in metrics.items() if key[0] == "vinegrape_requests_total" and value}
    assert requests == {
        ("", "200", "rest"): VALID + JSON,
        ("", "200", "grpc"): VALID - 1 + JSON - 1,
        ("unsupported_format", "415", "rest"): INVALID,
        ("unsupported_format", "415", "grpc"): INVALID - 1,
    }
    images = {key[1]: value for key, value in metrics.items() if key[0] == "vinegrape_images_total" and value}
    assert images == {"": CLASSIFIED, "unsupported_format": 2 * INVALID - 1, "bad_request": JSON_BODIES}
    assert sum(value for key, value in metrics.items() if key[0] == "vinegrape_predictions_total") == CLASSIFIED
    assert metrics["vinegrape_confidence_count", "tiny"] == CLASSIFIED
    assert metrics[("vinegrape_batch_size_sum",)] == CLASSIFIED
    assert metrics[("vinegrape_request_seconds_count",)] == REQUESTS
    assert metrics[("vinegrape_decode_seconds_count",)] == CLASSIFIED + 2 * INVALID - 1


def test_the_metrics_describe_the_model_and_the_processes(counted_server, tiny_archive):
    metrics = counted_server.metrics()
    metadata = read_metadata(tiny_archive)
    assert metrics[
        "vinegrape_model_info", metadata.architecture, "onnx_int8", metadata.data_digest, "cpu", "vinegrape",
        metadata.version,
    ] == 1  # fmt: skip
    assert metrics[("vinegrape_workers_ready",)] == 2
    assert metrics[("vinegrape_batches_in_progress",)] == 0
    for process in ("supervisor", "frontend", "workers"):
        assert metrics["vinegrape_resident_memory_bytes", process] > 10_000_000


def test_metrics_of_torchserve_and_of_the_machine_are_included(counted_server):
    wait_until(lambda: counted_server.received() == REQUESTS)  # without the server's own requests
    # TorchServe measures the machine a moment after its start
    wait_until(lambda: ("ts_host_cpu_utilization_ratio",) in counted_server.metrics())
    assert counted_server.metrics()[("ts_host_memory_bytes", "used")] > 0


@pytest.mark.tools
def test_promtool_accepts_the_metrics(counted_server):
    text = counted_server.operations("/metrics").text
    promtool = program("promtool", "prometheus")
    result = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True)
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


@pytest.mark.tools
def test_prometheus_scrapes_the_counts(counted_server, tmp_path):
    with scraping(counted_server, tmp_path) as prometheus:
        query = prometheus.query
        wait_until(lambda: prometheus.has_data('up{job="vinegrape"} == 1'))
        assert query("sum by (transport) (vinegrape_requests_total)") == {
            "rest": VALID + INVALID + JSON, "grpc": VALID + INVALID + JSON - 3,
        }  # fmt: skip
        assert query("sum by (error) (vinegrape_images_total) > 0")[""] == CLASSIFIED
        assert query("vinegrape_workers_ready == 2")
        assert query("count(vinegrape_model_info)") == {"": 1}
        assert query("histogram_quantile(0.5, sum by (le) (vinegrape_request_seconds_bucket)) > 0")


def test_the_operations_port_listens_on_this_machine_only_by_default(counted_server):
    assert not listens("127.0.0.2", counted_server.ports["operations_port"])


def test_vinegrape_ready_succeeds_without_output(counted_server):
    """The container image's health check runs this command."""
    ready = run_command(command("ready", f"--operations-port={counted_server.ports['operations_port']}"))
    assert (ready.returncode, ready.stdout, ready.stderr) == (0, "", "")
