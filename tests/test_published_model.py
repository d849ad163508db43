"""The committed figures are those of the committed archive, and they are good enough to publish."""

import dataclasses
import zipfile
from collections.abc import Iterator

import pytest

from tests.support.pages import ROOT
from vinegrape_handler.metadata import METADATA_FILE, Metadata
from vinegrape_training.evaluation.out_of_fold import OUT_OF_FOLD_FILE, OutOfFold
from vinegrape_training.evaluation.report import Report

FOLDER = ROOT / "docs" / "model"


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


def test_the_figures_follow_from_the_predictions(report: Report) -> None:
    predictions = OutOfFold.read(FOLDER / OUT_OF_FOLD_FILE)
    computed = Report.of(predictions, report.classes, report.data_digest, report.recipe)
    expected = list(numbers(dataclasses.asdict(dataclasses.replace(report, reference=None))))  # it is of the images
    assert list(numbers(dataclasses.asdict(computed))) == pytest.approx(expected, rel=1e-6)
    assert computed.wrong == report.wrong


def test_the_model_is_reported_on_other_seeds_than_recipes_were_compared_on(report: Report) -> None:
    """Recipes were compared on seed 0 (docs/notes/model-log.md)."""
    assert report.folds == 5
    assert 0 not in report.seeds


def test_the_archive_holds_the_figures_of_the_evaluation(report: Report) -> None:
    with zipfile.ZipFile(ROOT / "model_store" / "vinegrape.mar") as archive:
        metadata = Metadata.from_json(archive.read(METADATA_FILE))
    assert report.metrics().items() <= metadata.metrics.items()
    assert metadata.temperature == report.temperature
    assert metadata.data_digest == report.data_digest
    assert metadata.input_size == report.recipe["input_size"]
    assert metadata.architecture == report.recipe["model"]["architecture"]


def test_the_model_is_good_enough_to_publish(report: Report) -> None:
    assert report.accuracy >= 0.985
    assert report.calibration_error <= 0.02
    assert report.int8 is not None
    assert max(report.int8["more_wrong"].values()) <= 1


def test_the_model_knows_leaves_and_refuses_foreign_images(report: Report) -> None:
    """Other grapevine varieties are the exception (docs/model.md): their leaves look like those of the five."""
    assert report.abstention is not None
    assert report.abstention["known"] >= 0.98
    passed = {kind: figures["new_source"]["passed"] for kind, figures in report.abstention["kinds"].items()}
    assert {kind for kind, share in passed.items() if share > 0.05} == {"other_varieties"}
    assert report.abstention["kinds"]["things"]["new_source"]["auroc"] >= 0.99
