"""The reference distributions of an archive, from the predictions of a cross-validation and from its images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vinegrape_handler.properties import measure
from vinegrape_handler.reference import CONFIDENCE, OOD_SCORE, Distribution, Reference

# At most this many bins within the reference's range. A window of 100 answers has 10 in each.
_BINS = 10
_AT_ONCE = 64  # images that are measured at the same time, to save memory

# The smallest difference of each property that matters. A bin is at least this wide: JPEG's noise on a white background
# is no drift, although every background of the reference may be exactly white.
_RESOLUTIONS = {
    CONFIDENCE: 0.01,
    OOD_SCORE: 0.1,
    "brightness": 0.02,
    "sharpness": 0.005,
    "background": 0.05,
    "size": 0.02,
    "warmth": 0.005,
}


def make_reference(
    classes: Sequence[str],
    probabilities: NDArray[np.floating],
    ood_scores: NDArray[np.floating] | None,
    images: NDArray[np.uint8],
) -> Reference:
    """Compute the reference of a model.

    Args:
        classes: names of the C classes.
        probabilities: float [seeds, N, C], from networks that were not trained on the image.
        ood_scores: float [seeds, N], see `Outputs.ood_scores`; None if the network computes none.
        images: uint8 [N, S, S, 3].
    """
    labels = np.bincount(probabilities.argmax(axis=-1).ravel(), minlength=len(classes))
    shares = np.round(labels / labels.sum(), 6).tolist()
    values: dict[str, NDArray[np.floating]] = {CONFIDENCE: probabilities.max(axis=-1).ravel()}
    if ood_scores is not None:
        values[OOD_SCORE] = ood_scores.ravel()
    parts = [measure(images[start : start + _AT_ONCE]) for start in range(0, len(images), _AT_ONCE)]
    values |= {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Reference(
        images=len(images),
        labels=dict(zip(classes, shares, strict=True)),
        values={name: _distribution(each, _RESOLUTIONS[name]) for name, each in values.items()},
    )


def _distribution(values: NDArray[np.floating], resolution: float) -> Distribution:
    """Sort values into bins: one below their range, one above, and between them bins of about the same share."""
    inner: list[float] = []
    low, high = float(values.min()) - resolution, float(values.max()) + resolution
    for edge in np.quantile(values, np.arange(1, _BINS) / _BINS).tolist():
        if edge - (inner[-1] if inner else low) >= resolution and high - edge >= resolution:
            inner.append(edge)
    edges = [round(edge, 6) for edge in (low, *inner, high)]
    counts = np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1)
    return Distribution(tuple(edges), tuple(np.round(counts / len(values), 6).tolist()))
