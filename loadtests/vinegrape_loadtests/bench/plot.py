"""The results as a picture: how much of the ceiling each server reaches, and what waiting costs."""

from __future__ import annotations

import statistics
from pathlib import Path

from matplotlib.figure import Figure

from vinegrape_loadtests.bench.results import Results

_NAMES = {
    "vinegrape": "vinegrape",
    "same functions": "FastAPI, the same functions",
    "ordinary": "FastAPI, Pillow, float32",
    "stock": "TorchServe's image_classifier",
}
_OURS, _OTHERS = "#4c7a34", "#b9b9b9"


def draw(results: Results, path: Path) -> None:
    """Write a PNG."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    bars, tails = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_ratios(results, bars)
    _draw_tails(results, tails)
    figure.savefig(path, dpi=120, metadata={"Software": None})


def _draw_ratios(results: Results, axes) -> None:  # type: ignore[no-untyped-def]
    rows = []
    for workload in ("photo", "png"):
        ceiling = results.rates("ceiling", workload, "process")
        for target in reversed(_NAMES):
            rates = results.rates(target, workload, "rest")
            ratios = [rates[r] / ceiling[r] for r in rates.keys() & ceiling.keys()]
            if ratios:
                rows.append((f"{_NAMES[target]}, {workload}", statistics.median(ratios), target == "vinegrape"))
    axes.barh([r[0] for r in rows], [r[1] for r in rows], color=[_OURS if r[2] else _OTHERS for r in rows])
    for index, (_, ratio, _) in enumerate(rows):
        axes.text(ratio + 0.01, index, f"{ratio:.2f}", va="center", fontsize=8)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlim(0, 1.15)
    axes.set_title("Requests a second, of the same work in process without a server", fontsize=9)
    axes.tick_params(labelsize=8)


def _draw_tails(results: Results, axes) -> None:  # type: ignore[no-untyped-def]
    for name, percentiles in results.open_loop_ms.items():
        axes.plot(list(percentiles), list(percentiles.values()), marker="o", markersize=3, label=name)
    if alone := results.in_process_ms():
        axes.axhline(alone, color="black", linewidth=0.8)
        axes.text(0, alone, " in process", va="bottom", fontsize=8)
    axes.set_yscale("log")
    for ticks in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        ticks("{x:g}")
    axes.set_xlabel("percentile", fontsize=8)
    axes.set_title("ms from when a request was due,\nby arrivals and part of the peak", fontsize=9)
    axes.tick_params(labelsize=8, which="both")
    if results.open_loop_ms:
        axes.legend(fontsize=7)
