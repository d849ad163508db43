"""The population stability index and its threshold."""

import math

import numpy as np
import pytest

from vinegrape_handler.reference import Distribution, Reference
from vinegrape_server.drift.statistic import measure_drift, stability_index, threshold

REFERENCE = Reference(400, {"Ak": 0.5, "Nazli": 0.5}, {"brightness": Distribution((0.3, 0.4), (0.25, 0.5, 0.25))})


def test_the_index_of_equal_shares_is_0():
    assert stability_index([10, 30], [10, 30]) == 0
    assert stability_index([0, 0], [1000, 1000]) == 0


def test_the_index_can_be_worked_out_on_paper():
    """Half a count is added to each bin: the shares are 3 / 4 and 1 / 4 against 1 / 4 and 3 / 4."""
    assert stability_index([1, 0], [0, 1]) == pytest.approx(2 * 0.5 * math.log(3))


def test_the_threshold_falls_with_the_number_of_answers_to_the_smallest_score():
    values = [threshold(10, answers, 400, 7) for answers in (0, 100, 500, 1000)]
    assert values[0] == math.inf
    assert values[1] > values[2] > values[3]
    assert threshold(10, 10**6, 10**6, 7) == 0.25


def test_the_threshold_is_that_of_the_chi_square_distribution():
    """With 2 degrees of freedom the exact quantile is -2 ln(p). The approximation is a little above it."""
    approximation = threshold(3, 100, 400, 7) / (1 / 100 + 2 / 400)
    assert 1 <= approximation / (-2 * math.log(1e-4 / 7)) < 1.07


def test_independent_samples_of_the_same_distribution_stay_below_the_threshold():
    generator = np.random.default_rng(0)
    shares = np.full(10, 0.1)
    for answers in (100, 500):
        limit = threshold(10, answers, 400, 1)
        for _ in range(500):
            first, second = generator.multinomial(answers, shares), generator.multinomial(400, shares)
            assert stability_index(first.tolist(), second.tolist()) < limit


def test_the_drift_of_each_property_is_measured():
    counts = {"brightness": [50, 100, 50], "label": [200, 0]}
    drifts = measure_drift(REFERENCE, counts)
    assert drifts["brightness"].score == pytest.approx(0, abs=1e-3)
    assert not drifts["brightness"].has_drifted
    assert drifts["label"].has_drifted
    assert drifts["label"].answers == 200
    assert drifts["label"].shares == (0.5, 0.5)


def test_too_few_answers_are_no_drift():
    assert not measure_drift(REFERENCE, {"label": [99, 0]})["label"].has_drifted
    assert measure_drift(REFERENCE, {"label": [100, 0]})["label"].has_drifted
    assert measure_drift(REFERENCE, {"label": [0, 0]})["label"].score == 0
