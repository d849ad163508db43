from __future__ import annotations

import numpy as np
import pytest
import torch

from vinegrape_training.evaluation.calibration import calibration_error, fit_temperature, risk_coverage, wilson_interval


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_a_known_temperature_is_recovered(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    calibrated = 2 * torch.randn(20_000, 5, generator=generator)
    labels = torch.multinomial(calibrated.softmax(dim=1), 1, generator=generator).squeeze(1)
    assert fit_temperature(temperature * calibrated, labels) == pytest.approx(temperature, rel=0.05)


def test_twenty_correct_images_do_not_give_a_probability_of_one() -> None:
    # 20 images of 5 classes, all correct: (20 + 1) / (20 + 2), by Platt's rule
    logits = 3 * torch.eye(5).repeat(4, 1)
    temperature = fit_temperature(logits, torch.arange(5).repeat(4))
    assert (logits / temperature).softmax(dim=1).max().item() == pytest.approx(21 / 22, abs=1e-3)


def test_the_temperature_of_constant_logits_is_one() -> None:
    assert fit_temperature(torch.zeros(10, 5), torch.zeros(10, dtype=torch.int64)) == 1.0


def test_calibration_error_by_hand() -> None:
    # four predictions with confidence 0.9, three correct: |0.9 - 0.75|; four with 0.6, all correct: |0.6 - 1|
    probabilities = np.array([[0.9, 0.1]] * 4 + [[0.6, 0.4]] * 4)
    labels = np.array([0, 0, 0, 1, 0, 0, 0, 0])
    assert calibration_error(probabilities, labels) == pytest.approx(0.5 * 0.15 + 0.5 * 0.4)


def test_confident_and_correct_predictions_have_no_calibration_error() -> None:
    assert calibration_error(np.eye(3), np.arange(3)) == 0


def test_wilson_interval_equals_published_values() -> None:
    # Newcombe 1998, table I: 81 of 263 and 0 of 20, without continuity correction
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_wilson_interval_contains_the_accuracy_at_0_and_1() -> None:
    assert {wilson_interval(total, total)[1] for total in range(1, 500)} == {1}
    assert {wilson_interval(0, total)[0] for total in range(1, 500)} == {0}


def test_risk_coverage_by_hand() -> None:
    # by falling confidence: 0.9 is correct, 0.8 is wrong, 0.6 is correct
    probabilities = np.array([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8]])
    points = risk_coverage(probabilities, np.array([0, 0, 0]), [0.1, 2 / 3, 1.0])
    assert points == [
        {"coverage": pytest.approx(1 / 3), "risk": 0.0, "confidence": 0.9},
        {"coverage": pytest.approx(2 / 3), "risk": 0.5, "confidence": 0.8},
        {"coverage": 1.0, "risk": pytest.approx(1 / 3), "confidence": 0.6},
    ]
