"""Temperature, calibration error, risk and coverage, and the confidence interval of an accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Fit the temperature that maximises the likelihood of the labels when logits are divided by it.

    The method is Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2. The targets are smoothed as
    in Platt 1999, "Probabilistic Outputs for Support Vector Machines", section 2.2: the true class gets
    (N + 1) / (N + 2), and the other classes share the rest. Without smoothing, a network that classifies a few dozen
    images correctly would get a temperature near 0, and probabilities of 1. The order of the classes does not change.

    Args:
        logits: float [N, classes], of images that the network was not trained on.
        labels: int64 [N].

    Returns:
        The temperature, above 0. It is above 1 if the network is overconfident.
    """
    logits = logits.detach().double().cpu()
    count, classes = logits.shape
    other_class = 1 / (count + 2) / (classes - 1)
    targets = other_class + one_hot(labels.cpu(), classes) * (1 - classes * other_class)
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
    """Compute the expected calibration error: the mean gap between confidence and accuracy over bins of confidence.

    Guo et al. 2017, equation 3: bins of equal width, weighted by their number of images. torchmetrics computes the same
    in float32, which changes the sixth digit of the committed figures (docs/model/evaluation.json), and puts a
    confidence of exactly 1 into a bin of its own.

    Args:
        probabilities: float [N, classes].
        labels: int64 [N].
        bins: the number of bins.

    Returns:
        The error, from 0 (confidence equals accuracy) to 1.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(float(confidence[inside].mean()) - float(correct[inside].mean())) * np.mean(inside)
        for inside in (bin_of == index for index in np.unique(bin_of))
    ]
    return float(sum(gaps))


def risk_coverage(
    probabilities: NDArray[np.floating], labels: NDArray[np.int64], coverages: Sequence[float]
) -> list[dict[str, float]]:
    """Compute the share of wrong predictions if only the most confident images are classified.

    El-Yaniv and Wiener 2010, "On the Foundations of Noise-free Selective Classification", section 2.

    Args:
        probabilities: float [N, classes].
        labels: int64 [N].
        coverages: shares of the images that are classified, above 0 and up to 1. Each is rounded to whole images, at
            least one.

    Returns:
        One dictionary per coverage: "coverage", the share of classified images; "risk", the share of them that is
        wrong; "confidence", the lowest confidence among them.
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


def wilson_interval(correct: float, total: int, z: float = 1.959964) -> tuple[float, float]:
    """Compute the confidence interval of an accuracy.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference".

    Args:
        correct: number of correct predictions.
        total: number of predictions.
        z: quantile of the normal distribution; 1.96 gives the 95 % interval.

    Returns:
        The lower and the upper end, from 0 to 1.
    """
    share = correct / total
    centre = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2)) / (1 + z**2 / total)
    # at an accuracy of 0 or 1, rounding errors would exclude the accuracy itself
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))
