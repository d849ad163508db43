"""The figures under corruptions, with a classifier whose answers can be worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vinegrape_handler.errors import SettingError
from vinegrape_training.data.dataset import Dataset, scan
from vinegrape_training.evaluation.abstention import ForeignFigures
from vinegrape_training.evaluation.robustness import (
    CLEAN,
    ROBUSTNESS_FILE,
    Condition,
    Measurement,
    Predictions,
    Robustness,
    conditions,
    from_metrics,
    measure,
    metrics_in,
    rows,
    scores_of,
    strengths,
)

ALL = {condition.label: condition for condition in conditions()}
TESTED = [ALL[label] for label in (CLEAN, "dark 0.6", "black_background 1")]
SIDE = 8


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """A grey photo, and a white leaf that fills the upper half of a transparent frame."""
    for name in ("leaf", "photo"):
        (tmp_path / "data" / name).mkdir(parents=True)
    Image.new("RGB", (SIDE, SIDE), (100, 100, 100)).save(tmp_path / "data" / "photo" / "1.png")
    leaf = Image.new("RGBA", (SIDE, SIDE))
    leaf.paste((255, 255, 255, 255), (0, 0, SIDE, SIDE // 2))
    leaf.save(tmp_path / "data" / "leaf" / "1.png")
    return scan(tmp_path / "data")


def brightness(_: int, variants: NDArray[np.uint8]) -> Predictions:
    """One network: its first probability is the brightness, 0 to 1, and its score is 1 - that."""
    bright = variants.reshape(len(variants), -1).mean(axis=1) / 255
    probabilities = np.stack([bright, 1 - bright], axis=1)[None].astype(np.float32)
    return Predictions(probabilities, 1 - probabilities[..., 0])


def test_each_image_is_classified_under_each_condition(dataset: Dataset) -> None:
    indices = []

    def classify(index: int, variants: NDArray[np.uint8]) -> Predictions:
        indices.append(index)
        assert variants.shape == (3, SIDE, SIDE, 3)
        return brightness(index, variants)

    result = measure(dataset, SIDE, "bicubic", classify, TESTED)
    assert indices == [0, 1]
    assert result.labels.tolist() == [0, 1]
    leaf, photo = result.probabilities[:, 0, :, 0].T
    assert leaf.tolist() == pytest.approx([1, 0.6, 0.5], abs=0.01)  # black covers half of the frame
    assert photo[:2].tolist() == pytest.approx([100 / 255, 60 / 255], abs=0.01)
    assert result.scores is not None
    assert result.scores[:, 0, 0].tolist() == pytest.approx([0, 0.4, 0.5], abs=0.01)
    # the photo has no transparent background that could be replaced
    assert result.measured.tolist() == [[True, True], [True, True], [True, False]]


def test_the_figures_of_a_condition_cover_all_seeds() -> None:
    probabilities = np.array([[[[0.9, 0.1], [0.2, 0.8]], [[0.9, 0.1], [0.6, 0.4]]]])  # [1, 2 seeds, 2 images, 2]
    scores = np.array([[[0.1, 0.5], [0.2, 0.2]]])
    measurement = Measurement((ALL["dark 0.6"],), np.array([0, 1]), probabilities, None, np.ones((1, 2), np.bool_))
    (row,) = rows(measurement, probabilities, scores, np.array([[0.3, 0.3], [0.1, 0.3]]))
    assert (row.corruption, row.strength, row.required, row.images) == ("dark", 0.6, True, 2)
    assert row.accuracy == 0.75  # the second seed is wrong about the second image
    assert row.known == 0.5  # the first image of seed 1, the second image of seed 2
    assert row.accuracy_of_known == 0.5
    assert row.calibration_error == pytest.approx((0.1 + 0.1 + 0.2 + 0.6) / 4)


def test_images_that_a_condition_does_not_suit_are_left_out(dataset: Dataset) -> None:
    measurement = measure(dataset, SIDE, "bicubic", brightness, TESTED)
    scores, score = scores_of(measurement.probabilities, measurement.scores)
    assert score == "ood_score"
    clean, _, black = rows(measurement, measurement.probabilities, scores, np.full((1, 2), 0.1))
    assert (clean.images, clean.accuracy, clean.known) == (2, 1.0, 0.5)
    assert (black.images, black.known, black.accuracy_of_known) == (1, 0.0, None)

    measurement.measured[2] = False
    assert len(rows(measurement, measurement.probabilities, scores, np.full((1, 2), 0.1))) == 2


def test_one_minus_the_probability_takes_the_place_of_a_missing_score() -> None:
    scores, score = scores_of(np.array([[0.75, 0.25], [0.5, 0.5]]), None)
    assert scores.tolist() == [0.25, 0.5]
    assert score == "one minus the probability"


def robustness(**changes: object) -> Robustness:
    """The figures of a model that knows 3 of 4 clean images and no dark one."""
    measurement = Measurement(
        conditions=(ALL[CLEAN], ALL["dark 0.8"], ALL["dark 0.6"]),
        labels=np.array([0, 0, 1, 1]),
        probabilities=np.tile(np.array([[0.8, 0.2], [0.8, 0.2], [0.2, 0.8], [0.8, 0.2]], np.float32), (3, 1, 1, 1)),
        scores=np.array([[[0, 0, 0, 9]], [[0, 9, 9, 9]], [[9, 9, 9, 9]]], np.float32),
        measured=np.ones((3, 4), np.bool_),
    )
    assert measurement.scores is not None
    values = {
        "source": "archive",
        "model": "0123456789ab",
        "data_digest": "digest",
        "seeds": 1,
        "score": "ood_score",
        "threshold": 1.0,
        "rows": rows(measurement, measurement.probabilities, measurement.scores, np.ones((1, 4))),
        "foreign": {"things": ForeignFigures(4, 0.25, 0.875)},
    }
    return Robustness(**(values | changes))  # type: ignore[arg-type]


def test_the_table_has_one_line_per_condition() -> None:
    note, header, *lines = robustness().table().splitlines()[0:1] + robustness().table().splitlines()[2:]
    assert "may have been trained on these images" in note
    assert "known if its OOD score is at most 1.000" in note
    assert header.split() == ["accuracy", "known", "of", "them", "right", "ECE"]
    assert [line.split() for line in lines] == [
        ["*", "clean", "75.0%", "75.0%", "100.0%", "0.050"],
        ["dark", "0.8", "75.0%", "25.0%", "100.0%", "0.050"],
        ["*", "dark", "0.6", "75.0%", "0.0%", "0.050"],
        [],
        ["*", "required:", "at", "least", "95", "%", "known", "and", "95", "%", "right,", "see", "docs/model.md"],
        [],
        ["foreign", "images", "images", "passed", "AUROC"],
        ["things", "4", "25.0%", "0.875"],
    ]


def test_the_note_states_which_networks_were_measured() -> None:
    assert "No network was trained on the images" in robustness(source="evaluation", seeds=2).note()
    assert "computes no OOD score" in robustness(score="one minus the probability").note()


def test_the_file_is_read_back(tmp_path: Path) -> None:
    for measured in (robustness(), robustness(foreign=None)):
        measured.write(tmp_path)
        assert Robustness.read(tmp_path / ROBUSTNESS_FILE) == measured


def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / ROBUSTNESS_FILE).write_text('{"rows": []}')
    with pytest.raises(SettingError, match=r"is not a robustness\.json that this version of vinegrape reads"):
        Robustness.read(tmp_path / ROBUSTNESS_FILE)


def test_the_metrics_are_the_required_figures(tmp_path: Path) -> None:
    assert metrics_in(tmp_path) == {}
    robustness().write(tmp_path)
    metrics = metrics_in(tmp_path)
    assert metrics == {
        "robustness_clean_accuracy": 0.75,
        "robustness_clean_known": 0.75,
        "robustness_clean_accuracy_of_known": 1.0,
        "robustness_dark_0.6_accuracy": 0.75,
        "robustness_dark_0.6_known": 0.0,
        "foreign_things_images": 4.0,
        "foreign_things_passed": 0.25,
        "foreign_things_auroc": 0.875,
    }
    clean, dark = from_metrics(metrics)
    assert (clean.condition.label, clean.accuracy_of_known) == ("clean", 1.0)
    assert (dark.condition.label, dark.known, dark.accuracy_of_known) == ("dark 0.6", 0.0, None)


def test_a_model_that_cannot_abstain_has_accuracies_only() -> None:
    metrics = robustness(score="one minus the probability").metrics()
    assert metrics == {"robustness_clean_accuracy": 0.75, "robustness_dark_0.6_accuracy": 0.75}


def test_conditions_begin_with_the_clean_image() -> None:
    assert conditions()[0] == Condition(None, 0)
    required = conditions(required_only=True)
    assert required[0].name == CLEAN
    assert ALL["dark 0.6"] in required
    assert ALL["dark 0.8"] not in required
    assert all(condition.required for condition in required)


def test_rows_are_grouped_by_corruption() -> None:
    assert {name: [row.strength for row in group] for name, group in strengths(robustness().rows).items()} == {
        "dark": [0.8, 0.6]
    }
