"""What docs/model.md, README and the archive say of the model is what cross-validation wrote to docs/model/."""

import dataclasses
import json
import re
import zipfile
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT
from vinegrape_handler.metadata import METADATA_FILE, Metadata
from vinegrape_training.evaluation.out_of_fold import OUT_OF_FOLD_FILE, OutOfFold
from vinegrape_training.evaluation.report import Report
from vinegrape_training.experiments.comparison import COMPARISON_FILE, Candidate, table

FOLDER = ROOT / "docs" / "model"
PAGE = (ROOT / "docs" / "model.md").read_text()


def numbers(values: object) -> Iterator[float]:
    """All numbers in a report, in order."""
    if isinstance(values, dict):
        values = list(values.values())
    if isinstance(values, list | tuple):
        for value in values:
            yield from numbers(value)
    elif isinstance(values, int | float):
        yield values


@pytest.fixture(scope="module")
def report() -> Report:
    return Report.read(FOLDER)


def test_the_figures_follow_from_the_answers(report: Report) -> None:
    made = OutOfFold.read(FOLDER / OUT_OF_FOLD_FILE)
    again = dataclasses.asdict(Report.of(made, report.classes, report.data_digest, report.recipe, report.leaky))
    assert list(numbers(again)) == pytest.approx(list(numbers(dataclasses.asdict(report))), rel=1e-6)
    assert again["wrong"] == report.wrong


def test_it_is_measured_on_other_deals_than_recipes_are_compared_on(report: Report) -> None:
    assert (report.seeds, report.folds) == ((1, 2), 5)
    assert "--seed 0" in PAGE


def test_the_page_shows_the_figures_and_the_confusion(report: Report) -> None:
    assert report.table() in PAGE
    for name, counts in zip(report.classes, report.confusion, strict=True):
        assert f"| {name} | {' | '.join(map(str, counts))} |" in PAGE


def test_the_page_shows_the_comparison() -> None:
    values = json.loads((FOLDER / COMPARISON_FILE).read_text())
    candidates = [Candidate(**{**value, "accuracy_95": tuple(value["accuracy_95"])}) for value in values]
    assert table(candidates) in PAGE


def test_the_archive_quotes_the_evaluation(report: Report) -> None:
    with zipfile.ZipFile(ROOT / "model_store" / "vinegrape.mar") as archive:
        metadata = Metadata.from_json(archive.read(METADATA_FILE))
    assert report.metrics().items() <= metadata.metrics.items()
    assert metadata.temperature == report.temperature
    assert metadata.data_digest == report.data_digest
    assert (metadata.input_size, metadata.architecture) == (
        report.recipe["input_size"],
        report.recipe["model"]["architecture"],
    )


def test_the_model_is_good_enough(report: Report) -> None:
    """What a model must reach to be shipped."""
    assert report.accuracy >= 0.98
    assert report.calibration_error <= 0.03
    assert report.int8 is not None
    assert max(report.int8["more_wrong"].values()) <= 2


def test_readme_quotes_the_evaluation(report: Report) -> None:
    assert f"{report.accuracy:.2%}".replace("%", " %") in (ROOT / "README.md").read_text()


def test_the_page_names_only_files_that_exist() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
