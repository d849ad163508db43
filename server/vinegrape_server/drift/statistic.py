"""The statistic of drift: the population stability index, and the threshold that chance hardly ever exceeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from vinegrape_handler.reference import LABEL, Reference
from vinegrape_server.settings import MIN_DRIFT_ANSWERS

# The probability that a window of independent images like those of the reference has at least one score above its
# threshold. Overlapping windows have similar scores, so looking often adds little.
_FALSE_ALARM = 1e-4
# A smaller score is no drift, however certain it is. Practitioners act from 0.2 or 0.25 on.
_SMALLEST_SCORE = 0.25
# Added to the count of each bin, so that an empty bin has a logarithm (Jeffreys' prior)
_PRIOR = 0.5


@dataclass(frozen=True)
class Drift:
    """The drift of one property.

    Attributes:
        answers: how many answers were compared with the reference.
        score: the population stability index, 0 or more.
        threshold: above it, the property has drifted.
        counts: the answers by bin, or by label.
        shares: the reference's share of each bin or label.
    """

    answers: int
    score: float
    threshold: float
    counts: tuple[float, ...]
    shares: tuple[float, ...]

    @property
    def has_drifted(self) -> bool:
        """Whether the score is above the threshold, and there are enough answers."""
        return self.answers >= MIN_DRIFT_ANSWERS and self.score > self.threshold


def measure_drift(reference: Reference, counts: Mapping[str, Sequence[float]]) -> dict[str, Drift]:
    """Compare the counts of a window with the reference.

    Args:
        reference: of the model.
        counts: by property: answers in each bin of the reference's distribution; for `LABEL`, by label in its order.

    Returns:
        The drift of each property of `counts`.
    """
    shares = {name: each.shares for name, each in reference.values.items()} | {LABEL: tuple(reference.labels.values())}
    return {
        name: Drift(
            answers=round(sum(each)),
            score=stability_index(each, [share * reference.images for share in shares[name]]),
            threshold=threshold(len(each), sum(each), reference.images, len(counts)),
            counts=tuple(each),
            shares=shares[name],
        )
        for name, each in counts.items()
    }


def stability_index(first: Sequence[float], second: Sequence[float]) -> float:
    """Compute the population stability index of two histograms with the same bins.

    It is the sum over the bins of (p - q) ln(p / q), where p and q are the shares of the bin in both histograms.
    """
    index = 0.0
    for p, q in zip(_smoothed(first), _smoothed(second), strict=True):
        index += (p - q) * math.log(p / q)
    return index


def threshold(bins: int, answers: float, images: int, properties: int) -> float:
    """Return the score above which a property has drifted.

    Without drift, the index of two independent samples is about (1 / answers + 1 / images) times a chi-square variable
    with bins - 1 degrees of freedom (Yurdakul and Naranjo 2020, "Statistical properties of the population stability
    index", Journal of Risk Model Validation 14/4). But the answers are not independent: users send several photos of
    the same plants. So they count as drawn from as many different leaves as the reference has, which adds another
    1 / images. The probability of a false alarm is divided by the number of properties (Bonferroni).

    Args:
        bins: number of bins.
        answers: in the window; for none, the threshold is infinite.
        images: in the reference.
        properties: that are compared at the same time.
    """
    if not answers:
        return math.inf
    chance = _chi_square_quantile(bins - 1, 1 - _FALSE_ALARM / properties) * (1 / answers + 2 / images)
    return max(_SMALLEST_SCORE, chance)


def _smoothed(counts: Sequence[float]) -> list[float]:
    total = sum(counts) + _PRIOR * len(counts)
    return [(count + _PRIOR) / total for count in counts]


def _chi_square_quantile(degrees: int, probability: float) -> float:
    """Return a quantile of the chi-square distribution, by the approximation of Wilson and Hilferty (1931).

    Far in the tail it is up to 7 % too large.
    """
    spread = 2 / (9 * degrees)
    return degrees * (1 - spread + NormalDist().inv_cdf(probability) * math.sqrt(spread)) ** 3
