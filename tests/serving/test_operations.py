"""Probes and metrics of a live server: counts that equal what was asked, and a real Prometheus that reads them."""

import base64
import json
import signal
import subprocess
from collections.abc import Iterator

import httpx
import pytest

from tests.cli.test_main import run
from tests.conftest import program
from tests.serving.test_lifecycle import read_self_check, workers
from tests.support.server import PORTS, ROOT, Live, free_port, serving, starting, wait_until, with_entry
from vinegrape_server.settings import ServeSettings

CONFIG = ROOT / "serve_config" / "prometheus.yml"
RIGHT, BROKEN, INSTANCES = 5, 3, 2  # of each over REST; over gRPC one fewer


@pytest.fixture(scope="module")
def asked(small_archive, tmp_path_factory) -> Iterator[Live]:
    """A fresh server of two workers that has answered a known number of requests."""
    _, (picture, *_) = read_self_check(small_archive)
    b64 = base64.b64encode(picture).decode()
    instances = json.dumps({"instances": [{"b64": b64}, {"b64": b64}, {"b64": "?"}]}).encode()
    with serving(small_archive, tmp_path_factory.mktemp("asked") / "log", workers=2) as live:
        for content, times in [(picture, RIGHT), (b"no image", BROKEN), (instances, INSTANCES)]:
            live.at_once(live.post, [content] * times)
            live.at_once(live.call, [content] * (times - 1))
        yield live


def test_the_counts_are_what_was_asked(asked):
    metrics = asked.metrics()
    requests = {key[1:]: value for key, value in metrics.items() if key[0] == "vinegrape_requests_total" and value}
    assert requests == {
        ("", "200", "rest"): RIGHT + INSTANCES,
        ("", "200", "grpc"): RIGHT - 1 + INSTANCES - 1,
        ("unsupported_format", "415", "rest"): BROKEN,
        ("unsupported_format", "415", "grpc"): BROKEN - 1,
    }
    lists = 2 * INSTANCES - 1
    right = 2 * RIGHT - 1 + 2 * lists
    images = {key[1]: value for key, value in metrics.items() if key[0] == "vinegrape_images_total" and value}
    assert images == {"": right, "unsupported_format": 2 * BROKEN - 1, "bad_request": lists}
    assert sum(value for key, value in metrics.items() if key[0] == "vinegrape_predictions_total") == right
    assert metrics[("vinegrape_confidence_count",)] == right
    assert metrics[("vinegrape_batch_size_sum",)] == right
    assert metrics[("vinegrape_request_seconds_count",)] == 2 * (RIGHT + BROKEN + INSTANCES) - 3
    assert metrics[("vinegrape_decode_seconds_count",)] == right + 2 * BROKEN - 1


def test_the_model_and_the_processes(asked, small_archive):
    metrics = asked.metrics()
    metadata, _ = read_self_check(small_archive)
    assert metrics[
        "vinegrape_model_info", metadata.architecture, "onnx_int8", metadata.data_digest, "cpu", "vinegrape",
        metadata.version,
    ] == 1  # fmt: skip
    assert metrics[("vinegrape_workers_ready",)] == 2
    assert metrics[("vinegrape_batches_in_progress",)] == 0
    for process in ("supervisor", "frontend", "workers"):
        assert metrics["vinegrape_resident_memory_bytes", process] > 10_000_000


def test_torchserves_and_the_systems_metrics_are_there_too(asked):
    """The system's come a moment after the start."""
    total = 2 * (RIGHT + BROKEN + INSTANCES) - 3
    assert asked.metrics()[("ts_inference_requests_total",)] >= total  # the start's self-checks too
    wait_until(lambda: ("ts_host_cpu_utilization_ratio",) in asked.metrics())
    assert asked.metrics()[("ts_host_memory_bytes", "used")] > 0


def test_promtool_finds_nothing_to_mend(asked):
    text = asked.operations("/metrics").text
    result = subprocess.run(
        [program("promtool", "prometheus"), "check", "metrics"], input=text, capture_output=True, text=True
    )
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


def test_the_committed_configuration_scrapes_the_default_port():
    checked = subprocess.run([program("promtool", "prometheus"), "check", "config", CONFIG], capture_output=True)
    assert checked.returncode == 0
    assert f"127.0.0.1:{ServeSettings().operations_port}" in CONFIG.read_text()


def test_a_prometheus_that_scrapes_shows_the_counts(asked, tmp_path):
    prometheus, port = program("prometheus", "prometheus"), free_port()
    target = f"127.0.0.1:{asked.ports['operations_port']}"
    config = tmp_path / "prometheus.yml"
    config.write_text(CONFIG.read_text().replace("127.0.0.1:8083", target).replace("15s", "1s"))
    arguments = [prometheus, f"--config.file={config}", f"--storage.tsdb.path={tmp_path}/data"]
    arguments.append(f"--web.listen-address=127.0.0.1:{port}")

    def query(expression) -> dict[str, float]:
        """The values of an instant query by their labels' values."""
        try:
            answer = httpx.get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": expression})
        except httpx.TransportError:  # it is still starting
            return {}
        if answer.status_code != 200:
            return {}
        rows = answer.json()["data"]["result"]
        return {" ".join(row["metric"].values()): float(row["value"][1]) for row in rows}

    with (tmp_path / "log").open("w") as log, subprocess.Popen(arguments, stdout=log, stderr=log) as process:
        try:
            wait_until(lambda: query("up") == {f"up {target} vinegrape": 1})
            assert query("sum by (transport) (vinegrape_requests_total)") == {
                "rest": RIGHT + BROKEN + INSTANCES, "grpc": RIGHT + BROKEN + INSTANCES - 3,
            }  # fmt: skip
            assert query("sum by (error) (vinegrape_images_total) > 0")[""] == 2 * RIGHT - 1 + 2 * (2 * INSTANCES - 1)
            assert query("vinegrape_workers_ready == 2")
            assert query("count(vinegrape_model_info)") == {"": 1}
            assert query("histogram_quantile(0.5, sum by (le) (vinegrape_request_seconds_bucket)) > 0")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def test_counts_outlive_a_worker(small_archive, tmp_path):
    _, (picture, *_) = read_self_check(small_archive)
    with serving(small_archive, tmp_path / "log") as live:
        for _ in range(3):
            live.post(picture)
        (worker,) = workers(live.process)
        worker.kill()
        wait_until(lambda: {each.pid for each in workers(live.process)} - {worker.pid})
        wait_until(lambda: live.operations("/readyz").status_code == 200)
        live.post(picture)
        assert live.metrics()["vinegrape_requests_total", "", "200", "rest"] == 4
        assert live.metrics()[("vinegrape_workers_ready",)] == 1
        assert live.metrics()[("vinegrape_worker_deaths_total",)] == 1


def test_ready_means_that_every_worker_has_answered(small_archive, tmp_path):
    """Of two workers one waits before it loads: TorchServe says Healthy, and the service is not ready."""
    first, go = tmp_path / "first", tmp_path / "go"
    code = f"""
import time
from pathlib import Path
from vinegrape_handler.handler import Handler

class Waits(Handler):
    def initialize(self, context):
        try:
            Path({str(first)!r}).mkdir()
        except FileExistsError:
            while not Path({str(go)!r}).exists():
                time.sleep(0.05)
        super().initialize(context)
"""
    with starting(with_entry(small_archive, tmp_path, code), tmp_path / "log", workers=2) as live:
        wait_until(lambda: says(live, "/readyz") == (503, "starting: 1 of 2 workers have answered right\n"))
        assert live.client.get("/ping").json() == {"status": "Healthy"}
        assert says(live, "/livez") == (200, "ok\n")
        go.touch()
        wait_until(lambda: says(live, "/readyz") == (200, "ok\n"))
        assert live.metrics()[("vinegrape_workers_ready",)] == 2


def says(live, path) -> tuple[int, str] | None:
    try:
        answer = live.operations(path)
    except httpx.TransportError:
        return None
    return answer.status_code, answer.text


def test_the_operations_port_stays_on_this_machine_by_default(server):
    assert "operations_port" in PORTS
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.2:{server.ports['operations_port']}/livez")


def test_the_probe_that_the_image_uses(server):
    ready = run("ready", "--operations-port", server.ports["operations_port"])
    assert (ready.returncode, ready.stdout, ready.stderr) == (0, "", "")
