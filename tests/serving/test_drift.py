"""Drift and feedback of a running server: the metrics of the operations port, and what a restart keeps."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import program
from tests.support import tiny_archive
from tests.support.images import solid
from tests.support.payloads import instances
from tests.support.server import Live, serving
from vinegrape_server.feedback.store import FILE

pytestmark = [pytest.mark.live, pytest.mark.xdist_group("drift_server")]

FEEDBACK = {"label": "Ak", "probability": 0.75, "truth": "Ak"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("drift")


@pytest.fixture(scope="module")
def drift_server(folder) -> Iterator[Live]:
    """Two workers with a model whose reference has red images only, and a window of 100 answers."""
    tiny_archive.write_export(folder / "export", reference=tiny_archive.RED_REFERENCE)
    archive = tiny_archive.write_archive(folder / "vinegrape.mar", folder / "export")
    with serving(
        archive, folder / "log", workers=2, drift_window=100, feedback_folder=folder / "feedback", feedback_rows=5
    ) as live:
        yield live


def send(live: Live, colour: tuple[int, int, int], number: int) -> None:
    """Classify images of one colour, in requests of up to 20."""
    image = solid(colour)
    requests = [instances(*[image] * min(20, number - start)) for start in range(0, number, 20)]
    assert {response.status_code for response in live.at_once(live.post, requests)} == {200}


def drifted(live: Live) -> set[str]:
    """The properties whose score is above their threshold, as the alert rule compares them."""
    metrics = live.metrics()
    scores = {key[1]: value for key, value in metrics.items() if key[0] == "vinegrape_drift_score"}
    return {name for name, score in scores.items() if score > metrics["vinegrape_drift_threshold", name]}


def test_other_images_raise_an_alarm_and_images_like_those_of_the_reference_do_not(drift_server):
    send(drift_server, tiny_archive.RED, 99)
    metrics = drift_server.metrics()
    assert metrics["vinegrape_drift_answers", "label"] == 99
    assert not any(key[0] == "vinegrape_drift_score" for key in metrics)  # there are too few answers

    send(drift_server, tiny_archive.RED, 1)
    metrics = drift_server.metrics()
    assert {key[1] for key in metrics if key[0] == "vinegrape_drift_score"} == {"label", "confidence", "brightness"}
    assert drifted(drift_server) == set()

    send(drift_server, tiny_archive.GREEN, 60)
    assert drifted(drift_server) == {"label"}  # confidence and brightness are those of red images
    send(drift_server, tiny_archive.BLACK, 60)
    assert drifted(drift_server) == {"label", "confidence", "brightness"}


def test_the_window_forgets_old_answers(drift_server):
    send(drift_server, tiny_archive.BLACK, 100)
    drift_server.metrics()  # each reading lets old answers leave
    for _ in range(10):
        send(drift_server, tiny_archive.RED, 20)
        answers = drift_server.metrics()["vinegrape_drift_answers", "brightness"]
    assert 100 <= answers <= 120
    assert drifted(drift_server) == set()


def test_the_buckets_of_all_workers_are_summed(drift_server):
    metrics = drift_server.metrics()
    assert metrics["vinegrape_image_brightness_bucket", "+Inf", "tiny"] == metrics["vinegrape_confidence_count", "tiny"]


@pytest.mark.tools
def test_promtool_accepts_the_metrics(drift_server):
    text = drift_server.operations("/metrics").text
    assert "vinegrape_drift_score" in text
    promtool = program("promtool", "prometheus")
    result = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True)
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


def test_feedback_becomes_accuracy_and_the_oldest_rows_are_removed(drift_server, folder):
    url = f"http://127.0.0.1:{drift_server.ports['operations_port']}/feedback"
    assert httpx.post(url, json=[{**FEEDBACK, "truth": "Nazli"}] * 4).json() == {"stored": 4}
    assert httpx.post(url, json=FEEDBACK).status_code == 200
    metrics = drift_server.metrics()
    assert metrics["vinegrape_feedback_accuracy", "tiny"] == 1 / 5
    assert httpx.post(url, json=[FEEDBACK] * 3).json() == {"stored": 3}
    metrics = drift_server.metrics()
    assert metrics["vinegrape_feedback_accuracy", "tiny"] == 4 / 5
    assert metrics["vinegrape_feedback_calibration_error", "tiny"] == pytest.approx(0.05)
    outcomes = ("correct", "wrong", "unknown_other", "unknown_variety")
    assert [metrics["vinegrape_feedback_answers", outcome, "tiny"] for outcome in outcomes] == [4, 1, 0, 0]
    assert (folder / "feedback" / FILE).is_file()
