from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vinegrape_training.evaluation.calibration import calibration_error, fit_temperature, risk_coverage, wilson_interval
from vinegrape_training.evaluation.predictions import Evaluation


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_known_temperature_is_found(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    honest = 2 * torch.randn(20_000, 5, generator=generator)
    labels = torch.multinomial(honest.softmax(dim=1), 1, generator=generator).squeeze(1)
    assert fit_temperature(temperature * honest, labels) == pytest.approx(temperature, rel=0.05)


def test_twenty_right_of_twenty_is_no_certainty() -> None:
    # 20 images of 5 classes, all right: (20 + 1) / (20 + 2), by Platt's rule
    logits = 3 * torch.eye(5).repeat(4, 1)
    temperature = fit_temperature(logits, torch.arange(5).repeat(4))
    assert (logits / temperature).softmax(dim=1).max().item() == pytest.approx(21 / 22, abs=1e-3)


def test_temperature_of_a_network_that_knows_nothing() -> None:
    assert fit_temperature(torch.zeros(10, 5), torch.zeros(10, dtype=torch.int64)) == 1.0


def test_calibration_error_by_hand() -> None:
    # four answers at 0.9, three of them right: |0.9 - 0.75|; four at 0.6, all right: |0.6 - 1|
    probabilities = np.array([[0.9, 0.1]] * 4 + [[0.6, 0.4]] * 4)
    labels = np.array([0, 0, 0, 1, 0, 0, 0, 0])
    assert calibration_error(probabilities, labels) == pytest.approx(0.5 * 0.15 + 0.5 * 0.4)


def test_sure_and_right_is_calibrated() -> None:
    assert calibration_error(np.eye(3), np.arange(3)) == 0


def test_wilson_interval_against_published_values() -> None:
    # Newcombe 1998, table I: 81 of 263 and 0 of 20, without continuity correction
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_wilson_interval_holds_what_was_seen() -> None:
    assert {wilson_interval(total, total)[1] for total in range(1, 500)} == {1}
    assert {wilson_interval(0, total)[0] for total in range(1, 500)} == {0}


def test_evaluation_counts() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0], [0.0, 2.0]])
    evaluation = Evaluation(logits, torch.tensor([0, 0, 0, 1]))
    assert evaluation.accuracy == 0.75
    assert evaluation.confusion().tolist() == [[2, 1], [0, 1]]
    metrics = evaluation.metrics(["a", "b"], temperature=1.0)
    assert metrics["test_recall_a"] == pytest.approx(2 / 3)
    assert metrics["test_recall_b"] == 1.0
    assert metrics["test_images"] == 4
    confidence = math.exp(2) / (1 + math.exp(2))
    assert metrics["test_calibration_error"] == pytest.approx(abs(confidence - 0.75), abs=1e-6)


def test_risk_coverage_by_hand() -> None:
    # the surest is right, the next wrong, the least sure right
    probabilities = np.array([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8]])
    points = risk_coverage(probabilities, np.array([0, 0, 0]), [0.1, 2 / 3, 1.0])
    assert points == [
        {"coverage": pytest.approx(1 / 3), "risk": 0.0, "confidence": 0.9},
        {"coverage": pytest.approx(2 / 3), "risk": 0.5, "confidence": 0.8},
        {"coverage": 1.0, "risk": pytest.approx(1 / 3), "confidence": 0.6},
    ]
