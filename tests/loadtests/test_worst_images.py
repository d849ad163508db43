import dataclasses
import json

import pytest
from click.testing import CliRunner

from vinegrape_handler.settings import WorkerSettings
from vinegrape_loadtests.bench.command import bench
from vinegrape_loadtests.worst_images.image import WorstImage
from vinegrape_loadtests.worst_images.measure import CRASHED, TIMED_OUT, measure_image, worst_images
from vinegrape_loadtests.worst_images.results import Cost, WorstImageResults, markdown, verdict

SMALL = WorkerSettings(max_image_bytes=200_000, max_image_pixels=250_000)
COST = Cost("PNG", "RGB", 100, 64, 200, "", 10, 20, 100)


def test_every_image_is_within_the_limits():
    """Drawn for small limits, every file stays within them, so that the handler looks at its content."""
    images = worst_images(SMALL)
    assert {image.format for image in images} == {"PNG", "JPEG", "WebP", "BMP", "TIFF", "JSON"}
    assert len({(image.format, image.shape) for image in images}) == len(images)
    for image in images:
        most = 1.5 if image.format == "JSON" else 1
        assert 0 < len(image.draw()) <= most * SMALL.max_image_bytes, image
        assert image.pixels <= SMALL.max_image_pixels, image


def write_small_environment(monkeypatch):
    for name in ("max_image_bytes", "max_image_pixels"):
        monkeypatch.setenv(f"VINEGRAPE_{name.upper()}", str(getattr(SMALL, name)))


@pytest.mark.xdist_group("timing")
def test_the_command_measures_images_and_writes_them(tiny_archive, tmp_path, monkeypatch):
    write_small_environment(monkeypatch)
    file = tmp_path / "costs.json"
    result = CliRunner().invoke(
        bench, ["images", "--only", "WebP lossy", "--archive", str(tiny_archive), "--write", str(file)]
    )
    assert result.exit_code == 0, result.output
    lossy, alpha = WorstImageResults.read(file).costs
    assert (lossy.shape, alpha.shape) == ("lossy", "lossy, alpha")
    assert {lossy.status, alpha.status} == {200}
    assert lossy.pixels == 433 * 433  # 3/4 of 500 x 500
    assert 0 < lossy.ms < 2000
    assert 20 < lossy.loaded_mib < 1000
    assert "No image takes more than 2 s or 600 MB" in result.output


def test_the_command_fails_if_no_image_is_chosen():
    result = CliRunner().invoke(bench, ["images", "--only", "GIF"])
    assert (result.exit_code, result.stderr) == (1, "Error: No image has 'GIF' in its format and shape.\n")


@pytest.fixture
def model(tiny_archive, tmp_path):
    from vinegrape_loadtests.local.server import unpacked

    with unpacked(tiny_archive) as folder:
        yield folder


@pytest.mark.xdist_group("timing")
def test_peak_memory_contains_the_body_and_an_error_keeps_its_message(model):
    """20,000,001 bytes are one more than the limit, so nothing else is allocated."""
    image = WorstImage("none", "too many bytes", 0, lambda: bytes(20_000_001))
    cost = measure_image(image, model, timeout_s=60)
    assert (cost.status, cost.sent_bytes) == (413, 20_000_001)
    assert "20000001 bytes" in cost.message
    assert 15 < cost.peak_mib < 100


@pytest.mark.xdist_group("timing")
def test_an_image_that_takes_too_long_is_given_up(model):
    image = next(image for image in worst_images(WorkerSettings()) if image.shape == "RGB")
    cost = measure_image(image, model, timeout_s=0.001)
    assert cost.status == TIMED_OUT
    assert cost.problems == ["status -1: not finished after 0.001 s"]


@pytest.mark.parametrize(
    ("changes", "problems"),
    [
        ({}, []),
        ({"status": 422}, []),
        ({"ms": 2001}, ["2001 ms"]),
        ({"peak_mib": 572}, []),  # 599.8 MB
        ({"peak_mib": 573}, ["601 MB"]),
        ({"status": 503, "message": "failed"}, ["status 503: failed"]),
        ({"status": CRASHED, "message": "the process ended"}, ["status 0: the process ended"]),
    ],
)
def test_problems_are_what_exceeds_a_limit_or_has_a_wrong_status(changes, problems):
    assert dataclasses.replace(COST, **changes).problems == problems


def results(*costs) -> WorstImageResults:
    return WorstImageResults("2 cores", dataclasses.asdict(SMALL), list(costs))


def test_the_verdict_names_the_worst():
    slow = dataclasses.replace(COST, shape="slow", ms=2500)
    text = verdict(results(COST, slow, dataclasses.replace(COST, shape="large", peak_mib=300)))
    assert text.startswith("1 of 3 images take more than 2 s or 600 MB, or fail: PNG slow (200).")
    assert "The slowest is PNG slow (200): 2,500 ms." in text
    assert "400 MiB (one), 800 MiB (two) or 6,400 MiB (16)" in text
    assert not results(COST, slow).passed
    assert results(COST).passed


def test_results_are_read_as_they_were_written(tmp_path):
    written = results(COST)
    written.write(tmp_path / "costs.json")
    assert WorstImageResults.read(tmp_path / "costs.json") == written
    assert json.loads((tmp_path / "costs.json").read_text())["costs"][0]["peak_mib"] == 20


def test_the_table_has_the_worst_and_those_that_exceed_a_limit():
    text = markdown(results(COST, dataclasses.replace(COST, shape="slow", ms=2500)))
    assert "| PNG | RGB | 100 | 64 | 200 | 10 | 20 |" in text
    assert "| PNG | slow | 100 | 64 | **200** | 2,500 | 20 |" in text
