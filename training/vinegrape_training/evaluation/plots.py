"""The plots of a run, an evaluation, a comparison and a search. Each function writes a PNG and returns its figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vinegrape_training.evaluation.calibration import calibration_error, risk_coverage
from vinegrape_training.evaluation.robustness import Row, strengths


def draw_curves(history: Sequence[dict[str, float]], path: Path) -> Figure:
    """Plot loss and accuracy of training and validation over the epochs.

    Args:
        history: one dictionary per epoch, such as {"validation/loss": 0.4}.
        path: of the PNG.
    """
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for part in ("train", "validation"):
            values = [epoch.get(f"{part}/{quantity}", np.nan) for epoch in history]
            axes.plot(range(1, len(values) + 1), values, marker=".", label=part)
        axes.set(xlabel="epoch", ylabel=quantity)
        axes.legend()
    return _save(figure, path)


def draw_confusion(counts: NDArray[np.int64], classes: Sequence[str], path: Path) -> Figure:
    """Plot a confusion matrix.

    Args:
        counts: [classes, classes], one row per true class, one column per predicted class.
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
    axes.set(xlabel="predicted class", ylabel="true class")
    for row, column in np.ndindex(counts.shape):
        dark = counts[row, column] > counts.max() / 2
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color="white" if dark else "black")
    return _save(figure, path)


def draw_reliability(
    probabilities: Mapping[str, NDArray[np.floating]], labels: NDArray[np.int64], path: Path, bins: int = 15
) -> Figure:
    """Plot accuracy over confidence, one panel per set of probabilities.

    Args:
        probabilities: panel title to float [N, classes].
        labels: int64 [N].
        path: of the PNG.
        bins: number of bins of equal width, as in `calibration_error`.
    """
    figure = Figure(figsize=(4.5 * len(probabilities), 4.2), layout="constrained")
    panels = figure.subplots(1, len(probabilities), squeeze=False)[0]
    for axes, (title, values) in zip(panels, probabilities.items(), strict=True):
        confidence, correct = values.max(axis=1), values.argmax(axis=1) == labels
        bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
        filled = np.unique(bin_of)
        heights = [correct[bin_of == index].mean() for index in filled]
        axes.bar((filled + 0.5) / bins, heights, width=0.9 / bins, color="tab:green", alpha=0.7)
        for index, height in zip(filled, heights, strict=True):
            axes.text((index + 0.5) / bins, height, str((bin_of == index).sum()), ha="center", va="bottom", fontsize=7)
        axes.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle="--")
        axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.06))
        axes.set_title(f"{title}: calibration error {calibration_error(values, labels, bins):.3f}", fontsize=10)
    return _save(figure, path)


def draw_risk_coverage(
    probabilities: NDArray[np.floating],
    labels: NDArray[np.int64],
    path: Path,
    ood_scores: NDArray[np.floating] | None = None,
    known: NDArray[np.bool_] | None = None,
) -> Figure:
    """Plot the share of wrong predictions over the share of images that is classified, most confident images first.

    Args:
        probabilities: float [N, classes].
        labels: int64 [N].
        path: of the PNG.
        ood_scores: float [N]; adds a curve with the images in this order, lowest score first.
        known: bool [N], the images whose score is at most the threshold; adds the point that the service is at.
    """
    points = risk_coverage(probabilities, labels, [(1 + index) / len(labels) for index in range(len(labels))])
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(
        [100 * point["coverage"] for point in points],
        [100 * point["risk"] for point in points],
        color="tab:green",
        label="by probability",
    )
    wrong = probabilities.argmax(axis=1) != labels
    if ood_scores is not None:
        risk = wrong[np.argsort(ood_scores, kind="stable")].cumsum() / np.arange(1, len(labels) + 1)
        axes.plot([100 * point["coverage"] for point in points], 100 * risk, color="tab:blue", label="by OOD score")
    if known is not None and known.any():
        axes.plot(100 * known.mean(), 100 * wrong[known].mean(), "o", color="tab:red", label="known, as served")
    if ood_scores is not None or known is not None:
        axes.legend()
    axes.set(xlabel="coverage: images classified, most confident first, %", ylabel="risk: wrong predictions, %")
    axes.set_xlim(0, 100)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    return _save(figure, path)


def draw_tradeoff(
    names: Sequence[str],
    latencies_ms: Sequence[float],
    accuracies: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    path: Path,
) -> Figure:
    """Plot accuracy over latency, one point per network, with the confidence interval of the accuracy.

    Args:
        names: legend entries of the points.
        latencies_ms: of one image.
        accuracies: 0 to 1.
        intervals: lower and upper end of each accuracy's interval.
        path: of the PNG.
    """
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.subplots()
    for name, latency, accuracy, (low, high) in zip(names, latencies_ms, accuracies, intervals, strict=True):
        below, above = 100 * (accuracy - low), 100 * (high - accuracy)
        axes.errorbar(latency, 100 * accuracy, yerr=[[below], [above]], fmt="o", capsize=3, label=name)
    axes.set(xlabel="latency of one image, int8, one thread, ms", ylabel="accuracy in cross-validation, %")
    axes.set_xlim(left=0)
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    return _save(figure, path)


def draw_search(
    parameters: Mapping[str, Sequence[object]], values: Sequence[float], logarithmic: Sequence[str], path: Path
) -> Figure:
    """Plot the validation loss of each trial: over the trials, with the best so far, and over each parameter.

    Args:
        parameters: parameter name to its value in each trial.
        values: validation loss of each trial.
        logarithmic: names of the parameters that get a logarithmic axis.
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
        axes.set_xlabel(name)
        if name in logarithmic:  # setting a linear scale would remove the names of categories from the axis
            axes.set_xscale("log")
    return _save(figure, path)


def draw_robustness_map(rows: Sequence[Row], path: Path) -> Figure:
    """Plot accuracy, share of known images and calibration error of each corruption and strength as a heat map.

    Args:
        rows: see `robustness.Row`; the first is that of the clean images.
        path: of the PNG.
    """
    grouped = strengths(rows)
    columns = max((len(levels) for levels in grouped.values()), default=1)
    figure = Figure(figsize=(10, 1.6 + 0.34 * len(grouped)), layout="constrained")
    panels = {"accuracy": ("accuracy, %", "RdYlGn", 50, 100), "known": ("known, %", "RdYlGn", 50, 100),
              "calibration_error": ("calibration error, %", "RdYlGn_r", 0, 20)}  # fmt: skip
    for axes, (field, (title, colours, low, high)) in zip(
        figure.subplots(1, len(panels), sharey=True), panels.items(), strict=True
    ):
        values = np.full((len(grouped), columns), np.nan)
        for line, levels in enumerate(grouped.values()):
            for column, row in enumerate(levels):
                values[line, column] = 100 * getattr(row, field)
                text = f"{row.strength:g}: {values[line, column]:.1f}"
                axes.text(
                    column, line, text, ha="center", va="center", fontsize=7, weight="bold" if row.required else None
                )
        axes.imshow(values, cmap=colours, vmin=low, vmax=high, aspect="auto", alpha=0.6)
        axes.set_xticks([])
        axes.set_xlabel("strength, from weak to strong")
        axes.set_yticks(range(len(grouped)), list(grouped))
        axes.set_title(f"{title}; clean: {100 * getattr(rows[0], field):.1f}", fontsize=10)
    return _save(figure, path)


def draw_robustness_curves(rows: Sequence[Row], path: Path) -> Figure:
    """Plot accuracy and share of known images over the strength, one panel per corruption.

    Args:
        rows: see `robustness.Row`; the first is that of the clean images, which each panel begins with.
        path: of the PNG.
    """
    grouped = strengths(rows)
    across = 4
    down = max(1, -(-len(grouped) // across))
    figure = Figure(figsize=(3 * across, 2.2 * down), layout="constrained")
    panels = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
    for axes in panels[len(grouped) :]:
        axes.remove()
    for axes, (name, levels) in zip(panels, grouped.items(), strict=False):
        points = [rows[0], *levels]
        axes.plot([100 * row.accuracy for row in points], marker=".", label="right, %")
        axes.plot([100 * row.known for row in points], marker=".", linestyle="--", label="known, %")
        axes.set_xticks(range(len(points)), ["clean", *(f"{row.strength:g}" for row in levels)])
        axes.set_title(name, fontsize=10)
        axes.set_ylim(0, 103)
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize=8)
    return _save(figure, path)


def _save(figure: Figure, path: Path) -> Figure:
    figure.savefig(path, dpi=120)
    return figure
