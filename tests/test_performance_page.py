"""What docs/performance.md and README say of the benchmark is what it wrote to docs/performance/."""

import re

import pytest

from tests.conftest import ROOT
from vinegrape_loadtests.bench.report import TARGETS, report
from vinegrape_loadtests.bench.results import Results

FOLDER = ROOT / "docs" / "performance"
README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def results() -> Results:
    return Results.read(FOLDER / "bench.json")


def test_the_page_has_the_report(results):
    assert report(results) in (ROOT / "docs" / "performance.md").read_text()
    assert report(results) == (FOLDER / "bench.md").read_text().strip()


def test_the_page_speaks_of_each_aim_that_is_not_reached(results):
    missed = [aim for aim in TARGETS if not aim.reached(aim.figure(results) or 0)]
    section = (ROOT / "docs" / "performance.md").read_text().partition("## What is not reached")[2]
    rows = re.findall(r"^\| (?!what|---)(.+?) \|", section.partition("\n## ")[0], re.MULTILINE)
    assert len(rows) >= len(missed) - 2  # REST and gRPC are one row, as are even and Poisson arrivals


@pytest.mark.parametrize(
    ("row", "target"),
    [
        ("the same work in process, no server", "ceiling"),
        ("FastAPI calling the same functions", "fastapi_same_code"),
        ("FastAPI, Pillow, float32", "fastapi_float32"),
        ("TorchServe's image_classifier", "torchserve_stock"),
    ],
)
def test_readmes_ratios(results, row, target):
    (line,) = [line for line in README.splitlines() if line.startswith(f"| {row} |")]
    shown = [cell.strip() for cell in line.split("|")[2:4]]
    ratios = [results.ratio(target, workload) for workload in ("png", "photo")]
    assert shown == ["" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
