"""The figures of out-of-distribution scores, each worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from vinegrape_training.evaluation.abstention import (
    ForeignFigures,
    as_metrics,
    auroc,
    choose_threshold,
    foreign_figures,
    from_metrics,
    out_of_fold_thresholds,
    threshold_for,
)

LEAVES = np.array([1.0, 2.0, 3.0, 4.0])


@pytest.mark.parametrize(
    ("foreign", "expected"),
    [
        ([5.0, 6.0], 1.0),
        ([0.0], 0.0),
        ([2.5], 0.5),
        ([2.0], 0.375),  # above one of four leaves, and equal to one, which counts half
        ([5.0, 2.5], 0.75),
        ([1.0, 2.0, 3.0, 4.0], 0.5),
    ],
)
def test_auroc_is_the_share_of_pairs_in_order(foreign: list[float], expected: float) -> None:
    assert auroc(LEAVES, np.array(foreign)) == expected


@pytest.mark.parametrize(("share", "expected"), [(0.5, 2.0), (0.51, 3.0), (0.75, 3.0), (1.0, 4.0)])
def test_a_threshold_lets_at_least_a_share_of_the_leaves_pass(share: float, expected: float) -> None:
    assert threshold_for(LEAVES[::-1], share) == expected


def test_the_threshold_of_a_fold_comes_from_the_other_folds() -> None:
    scores, folds = np.array([1.0, 9.0, 2.0, 3.0]), np.array([0, 0, 1, 1])
    assert out_of_fold_thresholds(scores, folds, 1.0).tolist() == [3.0, 3.0, 9.0, 9.0]


def just_below(score: float) -> float:
    return float(np.nextafter(np.float32(score), np.float32(-np.inf)))


@pytest.mark.parametrize(
    ("foreign", "expected"),
    [
        ({}, 4.0),  # that of the leaves
        ({"things": [8.0, 9.0]}, just_below(8.0)),
        ({"things": [8.0, 9.0], "vines": [6.0]}, just_below(6.0)),
        ({"things": [8.0, 9.0], "varieties": [3.0, 9.0]}, just_below(8.0)),  # one variety scores as a leaf
        ({"varieties": [3.0, 9.0]}, 4.0),
        ({"things": [4.5, *[9.0] * 99]}, just_below(4.5)),
        ({"things": [4.5, *[9.0] * 100]}, just_below(9.0)),  # less than 1 % pass
    ],
)
def test_a_threshold_refuses_every_kind_that_the_score_separates(foreign: dict, expected: float) -> None:
    assert choose_threshold(LEAVES, {kind: np.array(scores) for kind, scores in foreign.items()}) == expected


def test_foreign_images_are_counted_by_kind() -> None:
    kinds = {"things": np.array([3.0, 3.5, 5.0, 6.0]), "vines": np.array([7.0])}
    figures = foreign_figures(LEAVES, kinds, threshold=3.0)
    # (2.5 + 3 + 4 + 4) of 4 x 4 pairs are in order
    assert figures == {"things": ForeignFigures(4, 0.25, 13.5 / 16), "vines": ForeignFigures(1, 0.0, 1.0)}


def test_figures_are_read_back_from_metrics() -> None:
    figures = {"other_varieties": ForeignFigures(64, 0.25, 0.9), "things": ForeignFigures(250, 0.0, 1.0)}
    metrics = as_metrics(figures)
    assert metrics["foreign_other_varieties_passed"] == 0.25
    assert from_metrics({"test_accuracy": 0.9, **metrics}) == figures
    assert from_metrics({"test_accuracy": 0.9}) == {}
