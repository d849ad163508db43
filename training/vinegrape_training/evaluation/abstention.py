"""Figures of a score that says how foreign an image is: which images stay known, and what is right among them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.floating]
"""Out-of-distribution scores [N]: the higher, the less an image is like the training images."""

CLEAN_SHARE = 0.98
"""The share of unseen leaves that a threshold lets pass, where none is given."""

FOREIGN_SHARE = 0.01
"""The largest share of the foreign images of a kind that a threshold lets pass, where scores separate the kind."""


@dataclass(frozen=True)
class ForeignFigures:
    """Figures of the foreign images of one kind.

    Attributes:
        images: their number.
        passed: the share, 0 to 1, whose score is at most the threshold: they get a label although they are foreign.
        auroc: the probability that a foreign image has a higher score than a leaf, 0 to 1; see `auroc`.
    """

    images: int
    passed: float
    auroc: float


def threshold_for(scores: Scores, share: float = CLEAN_SHARE) -> float:
    """Return the smallest of the scores such that at least this share of them is at most that score.

    Args:
        scores: of leaves that the network was not trained on.
        share: above 0, up to 1.
    """
    return float(np.quantile(scores, share, method="inverted_cdf"))


def choose_threshold(leaf_scores: Scores, foreign_scores: Mapping[str, Scores]) -> float:
    """Choose the threshold of a network that was trained with outliers.

    It is as high as possible, because leaves in other light or on another background have higher scores than clean
    leaves: at most 1 % of the foreign images of each kind pass it. But at least 98 % of the clean leaves do. A kind of
    which this alone lets more than 1 % pass has no part in the choice: no threshold separates it from the leaves.

    Args:
        leaf_scores: of clean leaves that the network was not trained on.
        foreign_scores: by kind, of foreign images whose source and species the network was not trained on.
    """
    lowest = threshold_for(leaf_scores)
    limits = [_below(threshold_for(scores, FOREIGN_SHARE)) for scores in foreign_scores.values()]
    return min((limit for limit in limits if limit > lowest), default=lowest)


def _below(score: float) -> float:
    """Return the next smaller float32, the type of scores: an image passes if its score is at most the threshold."""
    return float(np.nextafter(np.float32(score), np.float32(-np.inf)))


def out_of_fold_thresholds(scores: Scores, folds: NDArray[np.int64], share: float = CLEAN_SHARE) -> NDArray[np.float64]:
    """Choose the threshold of each image on the images of the other folds, so that no image has a part in its own.

    Args:
        scores: [N], of leaves, each by the network that was not trained on it.
        folds: [N], the fold that tested each image.
        share: see `threshold_for`.

    Returns:
        float64 [N].
    """
    thresholds = np.empty(len(scores))
    for fold in np.unique(folds):
        thresholds[folds == fold] = threshold_for(scores[folds != fold], share)
    return thresholds


def auroc(leaf_scores: Scores, foreign_scores: Scores) -> float:
    """Compute the area under the ROC curve.

    It is the probability that a foreign image has a higher score than a leaf, where equal scores count half (Mann and
    Whitney 1947). 0.5 is chance, 1 is a perfect separation. torchmetrics has the same, but its import takes 5 s.
    """
    leaves = np.sort(leaf_scores)
    below, up_to = (np.searchsorted(leaves, foreign_scores, side) for side in ("left", "right"))
    return float((below + up_to).mean() / 2 / len(leaves))


def foreign_figures(
    leaf_scores: Scores, foreign_scores: Mapping[str, Scores], threshold: float
) -> dict[str, ForeignFigures]:
    """Compute the figures of each kind of foreign images, which the network must not have been trained on.

    Args:
        leaf_scores: of clean leaves that the network was not trained on.
        foreign_scores: kind to the scores of its images.
        threshold: an image is known if its score is at most this number.

    Returns:
        Kind to figures, in the same order.
    """
    return {
        kind: ForeignFigures(len(scores), float((scores <= threshold).mean()), auroc(leaf_scores, scores))
        for kind, scores in foreign_scores.items()
    }


def as_metrics(foreign: Mapping[str, ForeignFigures]) -> dict[str, float]:
    """Convert to the metric names of `run.json` and `metadata.json`: `foreign_<kind>_<figure>`."""
    return {
        f"foreign_{kind}_{name}": float(value)
        for kind, figures in foreign.items()
        for name, value in asdict(figures).items()
    }


def from_metrics(metrics: Mapping[str, float]) -> dict[str, ForeignFigures]:
    """Convert from the metric names of `metadata.json`: kind to figures; empty if none were measured."""
    kinds = [match[1] for name in metrics if (match := re.fullmatch("foreign_(.+)_auroc", name))]
    return {
        kind: ForeignFigures(
            images=int(metrics[f"foreign_{kind}_images"]),
            passed=metrics[f"foreign_{kind}_passed"],
            auroc=metrics[f"foreign_{kind}_auroc"],
        )
        for kind in kinds
    }
