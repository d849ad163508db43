"""Can a probability be trusted: temperature, calibration error, and the interval of an accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Find the number to divide logits by so that the labels' likelihood is highest.

    Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2, on the targets of Platt 1999,
    "Probabilistic Outputs for Support Vector Machines", section 2.2: the right class gets (N + 1) / (N + 2), the others
    share the rest. Without it, a network that gets a few dozen images all right would be told to be sure without bound.
    The order of the classes stays.

    Args:
        logits: float [N, classes], of images that the network was not trained on.
        labels: int64 [N].

    Returns:
        The temperature, above 0; above 1 where the network is too sure of itself.
    """
    logits = logits.detach().double().cpu()
    count, classes = logits.shape
    wrong = 1 / (count + 2) / (classes - 1)
    targets = wrong + one_hot(labels.cpu(), classes) * (1 - classes * wrong)
    log_temperature = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = cross_entropy(logits / log_temperature.exp(), targets)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return math.exp(log_temperature.item())


def calibration_error(probabilities: NDArray[np.floating], labels: NDArray[np.int64], bins: int = 15) -> float:
    """Compute the expected calibration error: how far confidence and accuracy lie apart, a bin, weighted by images.

    Guo et al. 2017, equation 3, with bins of equal width.

    Args:
        probabilities: [N, classes].
        labels: int64 [N].
        bins: how many.

    Returns:
        0 (as often right as it says) to 1.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(float(confidence[bin_of == index].mean()) - float(right[bin_of == index].mean())) * np.mean(bin_of == index)
        for index in np.unique(bin_of)
    ]
    return float(sum(gaps))


def risk_coverage(
    probabilities: NDArray[np.floating], labels: NDArray[np.int64], coverages: Sequence[float]
) -> list[dict[str, float]]:
    """What answering only the surest part of the images would bring.

    El-Yaniv and Wiener 2010, "On the Foundations of Noise-free Selective Classification", section 2.

    Args:
        probabilities: [N, classes].
        labels: int64 [N].
        coverages: parts of the images, above 0 to 1; rounded to whole images, at least one.

    Returns:
        For each of them its coverage, its risk, the part of those answers that is wrong, and the least confidence.
    """
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    wrong = np.cumsum((probabilities.argmax(axis=1) != labels)[order])
    counts = [max(1, round(coverage * len(order))) for coverage in coverages]
    return [
        {
            "coverage": count / len(order),
            "risk": float(wrong[count - 1] / count),
            "confidence": float(confidence[order[count - 1]]),
        }
        for count in counts
    ]


def wilson_interval(right: float, total: int, z: float = 1.959964) -> tuple[float, float]:
    """Give the interval in which an accuracy lies, of which `right` of `total` images are one sample.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference"; z = 1.96 is 95 %.

    Returns:
        The lower and the upper end, 0 to 1.
    """
    share = right / total
    centre = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2)) / (1 + z**2 / total)
    # at 0 and at 1, rounding would put the end of the interval a little inside
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))
