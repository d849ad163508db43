import os
import subprocess
import sys

import pytest
from prometheus_client import generate_latest

from vinegrape_handler.errors import WORKER_ERRORS, DeadlineExceeded, NoImage, Overloaded
from vinegrape_handler.metrics import Metrics


def value(metrics, name, **labels) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_every_known_series_starts_at_zero():
    metrics = Metrics(("Ak", "Nazli"))
    for transport in ("rest", "grpc"):
        assert value(metrics, "vinegrape_requests_total", transport=transport, status="200", error="") == 0
        for error in WORKER_ERRORS:
            labels = {"transport": transport, "status": str(error.status), "error": error.type}
            assert value(metrics, "vinegrape_requests_total", **labels) == 0
    for type_ in ("", *(error.type for error in WORKER_ERRORS)):
        assert value(metrics, "vinegrape_images_total", error=type_) == 0
    assert DeadlineExceeded in WORKER_ERRORS
    assert value(metrics, "vinegrape_images_total", error=Overloaded.type) is None  # only the edge responds with it
    for label in ("Ak", "Nazli"):
        assert value(metrics, "vinegrape_predictions_total", label=label, version="") == 0


def test_requests_are_counted_by_transport_status_and_error():
    metrics = Metrics(("Ak", "Nazli"))
    metrics.count_request("rest", None, 0.25)
    metrics.count_request("grpc", NoImage("The request carries no image."), 0.5)
    assert value(metrics, "vinegrape_requests_total", transport="rest", status="200", error="") == 1
    assert value(metrics, "vinegrape_requests_total", transport="grpc", status="400", error="no_image") == 1
    assert value(metrics, "vinegrape_request_seconds_sum") == 0.75
    assert value(metrics, "vinegrape_images_total", error="") == 0


def test_images_are_counted_by_label_or_error():
    metrics = Metrics(("Ak", "Nazli"))
    metrics.count_prediction("Nazli", 0.75)
    metrics.count_failed_image(NoImage("The image is empty: 0 bytes."))
    assert value(metrics, "vinegrape_images_total", error="") == 1
    assert value(metrics, "vinegrape_images_total", error="no_image") == 1
    assert value(metrics, "vinegrape_predictions_total", label="Nazli", version="") == 1
    assert value(metrics, "vinegrape_predictions_total", label="Ak", version="") == 0
    assert value(metrics, "vinegrape_confidence_sum", version="") == 0.75


def test_an_image_without_a_label_is_counted_as_unknown():
    metrics = Metrics(("Ak", "Nazli"), abstains=True)
    assert value(metrics, "vinegrape_predictions_total", label="unknown", version="") == 0
    metrics.count_prediction(None, 0.75)
    assert value(metrics, "vinegrape_predictions_total", label="unknown", version="") == 1
    assert value(metrics, "vinegrape_confidence_sum", version="") == 0.75


def test_the_metrics_have_their_documented_names():
    """Dashboards and alerts use these names."""
    lines = generate_latest(Metrics(("Ak", "Nazli")).registry).decode().splitlines()
    names = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    assert {name for name in names if not name.endswith("_created")} == {
        "vinegrape_requests_total", "vinegrape_request_seconds", "vinegrape_images_total", "vinegrape_decode_seconds",
        "vinegrape_batch_size", "vinegrape_inference_seconds", "vinegrape_predictions_total", "vinegrape_confidence",
        "vinegrape_batches_in_progress", "vinegrape_workers_ready", "vinegrape_batch_started_seconds",
        "vinegrape_batch_finished_seconds",
    }  # fmt: skip


# Creates metrics as a worker does, in a process that may write files of a limited size
CREATE = """
import resource, sys
from vinegrape_handler.metrics import Metrics
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
Metrics([f"class {number} of Büzgülü" for number in range(1000)])
"""


def create(folder, max_file_bytes) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    command = [sys.executable, "-c", CREATE, str(max_file_bytes)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_all_files_of_the_metrics_have_their_disk_space(tmp_path):
    """On a full disk, a write to a mapped file without disk space ends the process."""
    result = create(tmp_path, 10_000_000)
    assert (result.returncode, result.stderr) == (0, "")
    files = {path.stem.rpartition("_")[0]: path.stat() for path in tmp_path.iterdir()}
    assert set(files) == {"counter", "histogram", "gauge_livesum", "gauge_liveall"}
    for file in files.values():
        assert file.st_blocks * 512 >= file.st_size > 65_536
    assert len({file.st_size for file in files.values()}) == 1  # prometheus_client has enlarged none


@pytest.mark.parametrize("max_file_bytes", [0, 70_000])
def test_missing_disk_space_is_reported(tmp_path, max_file_bytes):
    error = create(tmp_path, max_file_bytes).stderr.splitlines()[-1]
    assert f"bytes for the metrics in {tmp_path}: File too large. Free some space" in error
