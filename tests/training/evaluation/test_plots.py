"""The plots: each test reads from Matplotlib's axes what they show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vinegrape_training.evaluation import plots
from vinegrape_training.evaluation.robustness import Row

PROBABILITIES = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.3, 0.7]])
LABELS = np.array([0, 1, 1, 1])  # the second of four predictions is wrong
ROWS = (
    Row("clean", 0, True, 4, 1.0, 0.98, 1.0, 0.01),
    Row("dark", 0.8, False, 4, 0.9, 0.8, 1.0, 0.02),
    Row("dark", 0.6, True, 4, 0.75, 0.5, 1.0, 0.2),
    Row("blur", 2, True, 4, 0.5, 0.25, None, 0.3),
)


@pytest.fixture
def png(tmp_path: Path) -> Path:
    return tmp_path / "plot.png"


def test_curves_show_one_point_per_epoch(png: Path) -> None:
    history = [
        {"train/loss": 2.0, "validation/loss": 1.5, "train/accuracy": 0.25},
        {"train/loss": 1.0, "validation/loss": 1.0, "train/accuracy": 0.5},
    ]
    loss, accuracy = plots.draw_curves(history, png).axes
    train, validation = loss.lines
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["train", "validation"]
    assert train.get_xydata().tolist() == [[1, 2.0], [2, 1.0]]
    assert validation.get_ydata().tolist() == [1.5, 1.0]
    assert accuracy.lines[0].get_ydata().tolist() == [0.25, 0.5]
    assert np.isnan(accuracy.lines[1].get_ydata()).all()
    assert png.read_bytes().startswith(b"\x89PNG")


def test_confusion_shows_all_counts_in_place(png: Path) -> None:
    (axes,) = plots.draw_confusion(np.array([[9, 1], [2, 8]]), ["blue", "red"], png).axes
    counts = {text.get_position(): text.get_text() for text in axes.texts}
    assert counts == {(0, 0): "9", (1, 0): "1", (0, 1): "2", (1, 1): "8"}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["blue", "red"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")


def test_reliability_shows_the_accuracy_of_each_bin(png: Path) -> None:
    figure = plots.draw_reliability({"before": PROBABILITIES, "after": np.eye(2)[LABELS]}, LABELS, png, bins=10)
    before, after = figure.axes
    bars = {round(bar.get_x() + bar.get_width() / 2, 2): bar.get_height() for bar in before.patches}
    assert bars == {0.65: 1.0, 0.75: 1.0, 0.95: 0.5}
    assert [text.get_text() for text in before.texts] == ["1", "1", "2"]
    # (|0.6 - 1| + |0.7 - 1| + 2 x |0.9 - 0.5|) / 4
    assert before.get_title() == "before: calibration error 0.375"
    assert after.get_title() == "after: calibration error 0.000"


def test_risk_coverage_shows_percentages(png: Path) -> None:
    (axes,) = plots.draw_risk_coverage(PROBABILITIES, LABELS, png).axes
    (line,) = axes.lines
    np.testing.assert_allclose(line.get_xydata(), [[25, 0], [50, 50], [75, 100 / 3], [100, 25]])


def test_risk_coverage_by_ood_score_has_the_point_of_the_threshold(png: Path) -> None:
    """The wrong image has the highest score; the threshold lets the other three pass."""
    wrong = PROBABILITIES.argmax(axis=1) != LABELS
    (axes,) = plots.draw_risk_coverage(PROBABILITIES, LABELS, png, wrong.astype(float), ~wrong).axes
    _, by_score, served = axes.lines
    np.testing.assert_allclose(by_score.get_xydata(), [[25, 0], [50, 0], [75, 0], [100, 25]])
    np.testing.assert_allclose(served.get_xydata(), [[75, 0]])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "by probability", "by OOD score", "known, as served"
    ]  # fmt: skip


def test_tradeoff_shows_each_network_with_its_interval(png: Path) -> None:
    (axes,) = plots.draw_tradeoff(["small", "large"], [2.0, 8.0], [0.9, 0.95], [(0.85, 0.93), (0.9, 0.98)], png).axes
    small, large = axes.containers
    assert [container.get_label() for container in axes.containers] == ["small", "large"]
    assert small.lines[0].get_xydata().tolist() == [[2.0, 90.0]]
    (bar,) = large.lines[2]
    np.testing.assert_allclose(bar.get_segments(), [[[8.0, 90.0], [8.0, 98.0]]])


def test_search_shows_the_best_so_far_and_each_parameter(png: Path) -> None:
    parameters = {"lr": [0.1, 0.01, 0.001], "augmentation": ["light", "heavy", "light"]}
    trials, lr, augmentation = plots.draw_search(parameters, [0.5, 0.3, 0.4], ["lr"], png).axes
    values, best = trials.lines
    assert values.get_ydata().tolist() == [0.5, 0.3, 0.4]
    assert best.get_ydata().tolist() == [0.5, 0.3, 0.3]
    assert (lr.get_xscale(), augmentation.get_xscale()) == ("log", "linear")
    assert lr.lines[0].get_xydata().tolist() == [[0.1, 0.5], [0.01, 0.3], [0.001, 0.4]]
    assert [label.get_text() for label in augmentation.get_xticklabels()] == ["light", "heavy"]


def test_robustness_map_shows_each_strength_in_place(png: Path) -> None:
    accuracy, known, calibration = plots.draw_robustness_map(ROWS, png).axes
    assert {text.get_position(): text.get_text() for text in accuracy.texts} == {
        (0, 0): "0.8: 90.0",
        (1, 0): "0.6: 75.0",
        (0, 1): "2: 50.0",
    }
    assert [text.get_weight() for text in accuracy.texts] == ["normal", "bold", "bold"]
    assert [label.get_text() for label in accuracy.get_yticklabels()] == ["dark", "blur"]
    assert known.get_title() == "known, %; clean: 98.0"
    assert calibration.images[0].get_array().tolist() == [[2.0, 20.0], [30.0, None]]


def test_robustness_curves_begin_with_the_clean_images(png: Path) -> None:
    dark, blur = plots.draw_robustness_curves(ROWS, png).axes
    accuracy, known = dark.lines
    assert accuracy.get_ydata().tolist() == [100, 90, 75]
    assert known.get_ydata().tolist() == [98, 80, 50]
    assert [label.get_text() for label in dark.get_xticklabels()] == ["clean", "0.8", "0.6"]
    assert blur.get_title() == "blur"
