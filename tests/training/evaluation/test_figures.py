"""The figures of a test: from predictions, and to and from the metrics of `run.json`."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from vinegrape_training.errors import ExportError
from vinegrape_training.evaluation import figures
from vinegrape_training.evaluation.predictions import Evaluation

SINGLE_SPLIT = figures.TestFigures(
    images=4,
    accuracy=0.75,
    accuracy_95=(0.3, 0.95),
    calibration_error_before=0.2,
    calibration_error=0.1,
    recall={"blue": 0.5, "red": 1.0},
)
CROSS_VALIDATION = dataclasses.replace(SINGLE_SPLIT, int8_accuracy=0.5, int8_calibration_error=0.3, folds=5, seeds=2)


def test_figures_of_four_images_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0], [0.0, 2.0]])
    evaluation = Evaluation(logits, torch.tensor([0, 0, 0, 1]))
    assert evaluation.accuracy == 0.75
    assert evaluation.confusion().tolist() == [[2, 1], [0, 1]]
    result = evaluation.figures(["a", "b"], temperature=1.0)
    assert result.recall == {"a": pytest.approx(2 / 3), "b": 1.0}
    assert (result.images, result.accuracy) == (4, 0.75)
    assert result.accuracy_95 == pytest.approx((0.3006, 0.9544), abs=1e-4)
    confidence = math.exp(2) / (1 + math.exp(2))
    assert result.calibration_error == pytest.approx(abs(confidence - 0.75), abs=1e-6)
    halved = math.exp(1) / (1 + math.exp(1))
    assert evaluation.figures(["a", "b"], 2.0).calibration_error == pytest.approx(abs(halved - 0.75), abs=1e-6)
    assert evaluation.figures(["a", "b"], 2.0).calibration_error_before == result.calibration_error


def test_the_names_of_the_metrics() -> None:
    assert SINGLE_SPLIT.to_metrics() == {
        "test_images": 4.0,
        "test_accuracy": 0.75,
        "test_accuracy_low_95": 0.3,
        "test_accuracy_high_95": 0.95,
        "test_calibration_error_before": 0.2,
        "test_calibration_error": 0.1,
        "test_recall_blue": 0.5,
        "test_recall_red": 1.0,
    }
    assert CROSS_VALIDATION.to_metrics().items() - SINGLE_SPLIT.to_metrics().items() == {
        ("test_accuracy_onnx_int8", 0.5),
        ("test_calibration_error_onnx_int8", 0.3),
        ("cross_validation_folds", 5.0),
        ("cross_validation_seeds", 2.0),
    }


@pytest.mark.parametrize("test_figures", [SINGLE_SPLIT, CROSS_VALIDATION])
def test_metrics_convert_back_to_the_same_figures(test_figures) -> None:
    assert figures.TestFigures.from_metrics(test_figures.to_metrics(), ("blue", "red")) == test_figures


def test_metrics_without_a_test_are_reported() -> None:
    with pytest.raises(ExportError, match=r"has no test figures. Train it with data.test_fraction above 0"):
        figures.TestFigures.from_metrics({"validation_accuracy": 0.9}, ("blue", "red"))
