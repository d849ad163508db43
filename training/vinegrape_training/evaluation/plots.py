"""The pictures in a run's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vinegrape_training.evaluation.calibration import calibration_error, risk_coverage


def draw_curves(history: Sequence[dict[str, float]], path: Path) -> None:
    """Draw loss and accuracy over epochs, of training and validation.

    Args:
        history: an epoch's figures by name, such as "validation/loss", in order.
        path: of the PNG.
    """
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for part in ("train", "validation"):
            values = [epoch.get(f"{part}/{quantity}", np.nan) for epoch in history]
            axes.plot(range(1, len(values) + 1), values, marker=".", label=part)
        axes.set(xlabel="epoch", ylabel=quantity)
        axes.legend()
    figure.savefig(path, dpi=120)


def draw_confusion(counts: NDArray[np.int64], classes: Sequence[str], path: Path) -> None:
    """Draw how often each class was answered by each.

    Args:
        counts: [classes, classes], a row a true class.
        classes: their names.
        path: of the PNG.
    """
    side = 2.5 + 0.6 * len(classes)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(counts, cmap="Blues")
    ticks = range(len(classes))
    axes.set_xticks(ticks, classes, rotation=45, ha="right")
    axes.set_yticks(ticks, classes)
    axes.set(xlabel="answer", ylabel="variety")
    for row, column in np.ndindex(counts.shape):
        dark = counts[row, column] > counts.max() / 2
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color="white" if dark else "black")
    figure.savefig(path, dpi=120)


def draw_reliability(
    probabilities: Mapping[str, NDArray[np.floating]], labels: NDArray[np.int64], path: Path, bins: int = 15
) -> None:
    """Draw how often answers are right over how sure they are, a panel for each set of probabilities.

    Args:
        probabilities: a panel's title to float [N, classes].
        labels: int64 [N].
        path: of the PNG.
        bins: of equal width, as in `calibration_error`.
    """
    figure = Figure(figsize=(4.5 * len(probabilities), 4.2), layout="constrained")
    panels = figure.subplots(1, len(probabilities), squeeze=False)[0]
    for axes, (title, values) in zip(panels, probabilities.items(), strict=True):
        confidence, right = values.max(axis=1), values.argmax(axis=1) == labels
        bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
        filled = np.unique(bin_of)
        heights = [right[bin_of == index].mean() for index in filled]
        axes.bar((filled + 0.5) / bins, heights, width=0.9 / bins, color="tab:green", alpha=0.7)
        for index, height in zip(filled, heights, strict=True):
            axes.text((index + 0.5) / bins, height, str((bin_of == index).sum()), ha="center", va="bottom", fontsize=7)
        axes.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle="--")
        axes.set(xlabel="confidence", ylabel="part that is right", xlim=(0, 1), ylim=(0, 1.06))
        axes.set_title(f"{title}: calibration error {calibration_error(values, labels, bins):.3f}", fontsize=10)
    figure.savefig(path, dpi=120)


def draw_risk_coverage(probabilities: NDArray[np.floating], labels: NDArray[np.int64], path: Path) -> None:
    """Draw which part of the answers is wrong if only the surest part of the images is answered.

    Args:
        probabilities: float [N, classes].
        labels: int64 [N].
        path: of the PNG.
    """
    every = risk_coverage(probabilities, labels, [(1 + index) / len(labels) for index in range(len(labels))])
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([100 * point["coverage"] for point in every], [100 * point["risk"] for point in every], color="tab:green")
    axes.set(xlabel="images answered, the surest first, %", ylabel="wrong among them, %", xlim=(0, 100))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def draw_tradeoff(
    names: Sequence[str],
    latencies_ms: Sequence[float],
    accuracies: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    path: Path,
) -> None:
    """Draw accuracy over latency, with the accuracies' intervals.

    Args:
        names: of the points, in the legend.
        latencies_ms: of one image.
        accuracies: 0 to 1.
        intervals: their lower and upper ends.
        path: of the PNG.
    """
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.subplots()
    for name, latency, accuracy, (low, high) in zip(names, latencies_ms, accuracies, intervals, strict=True):
        below, above = 100 * (accuracy - low), 100 * (high - accuracy)
        axes.errorbar(latency, 100 * accuracy, yerr=[[below], [above]], fmt="o", capsize=3, label=name)
    axes.set(xlabel="one image, int8, one thread, ms", ylabel="accuracy by cross-validation, %")
    axes.set_xlim(left=0)
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def draw_search(
    parameters: Mapping[str, Sequence[object]], values: Sequence[float], logarithmic: Sequence[str], path: Path
) -> None:
    """Draw the value of each trial, with the best so far, and over each parameter.

    Args:
        parameters: a parameter to its value in each trial.
        values: of the trials, the smallest the best.
        logarithmic: parameters whose axis is.
        path: of the PNG.
    """
    figure = Figure(figsize=(3.2 * (1 + len(parameters)), 3.2), layout="constrained")
    first, *others = figure.subplots(1, 1 + len(parameters), sharey=True)
    first.plot(values, "o", color="tab:green")
    first.step(range(len(values)), np.minimum.accumulate(values), where="post", color="black", label="best so far")
    first.set(xlabel="trial", ylabel="validation loss")
    first.legend()
    for axes, (name, chosen) in zip(others, parameters.items(), strict=True):
        numbers = all(isinstance(value, int | float) for value in chosen)
        axes.plot(chosen if numbers else [str(value) for value in chosen], values, "o", color="tab:green")
        axes.set(xlabel=name, xscale="log" if name in logarithmic else axes.get_xscale())
    figure.savefig(path, dpi=120)
