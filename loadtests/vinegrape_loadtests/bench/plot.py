"""The figure of the benchmark: throughput relative to the ceiling, and latencies of the open loops."""

from __future__ import annotations

import statistics
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vinegrape_loadtests.bench.results import EDGE, OURS, PLAIN, Results

_NAMES = {
    PLAIN: PLAIN,
    EDGE: EDGE,
    "fastapi_same_code": "FastAPI, same code",
    "fastapi_float32": "FastAPI, Pillow, float32",
    "torchserve_stock": "TorchServe's image_classifier",
}
_OUR_COLOUR, _OTHERS = "#4c7a34", "#b9b9b9"


def draw(results: Results, path: Path) -> None:
    """Write the figure as a PNG."""
    make_figure(results).savefig(path, dpi=120, metadata={"Software": None})


def make_figure(results: Results) -> Figure:
    """Draw both panels; a panel without measurements stays empty."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    bars, tails = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_ratios(results, bars)
    _draw_tails(results, tails)
    return figure


def _draw_ratios(results: Results, axes: Axes) -> None:
    rows = []
    for workload in ("photo", "png"):
        ceiling = results.rates("ceiling", workload, "process")
        for server in reversed(_NAMES):
            rates = results.rates(server, workload, "rest")
            ratios = [rates[r] / ceiling[r] for r in rates.keys() & ceiling.keys()]
            if ratios:
                rows.append((f"{_NAMES[server]}, {workload}", statistics.median(ratios), server in OURS))
    axes.barh(
        [name for name, _, _ in rows],
        [ratio for _, ratio, _ in rows],
        color=[_OUR_COLOUR if ours else _OTHERS for _, _, ours in rows],
    )
    for index, (_, ratio, _) in enumerate(rows):
        axes.text(ratio + 0.01, index, f"{ratio:.2f}", va="center", fontsize=8)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlim(0, 1.15)
    axes.set_title("Requests per second, relative to the same work without a server", fontsize=9)
    axes.tick_params(labelsize=8)


def _draw_tails(results: Results, axes: Axes) -> None:
    for name, percentiles in results.open_loop_ms.items():
        axes.plot(list(percentiles), list(percentiles.values()), marker="o", markersize=3, label=name)
    if alone := results.in_process_ms():
        axes.axhline(alone, color="black", linewidth=0.8)
        axes.text(0, alone, " without a server", va="bottom", fontsize=8)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.set_xlabel("percentile", fontsize=8)
    axes.set_title("Latency in ms from when a request was due,\nby arrivals and part of the peak", fontsize=9)
    axes.tick_params(labelsize=8, which="both")
    if results.open_loop_ms:
        axes.legend(fontsize=7)
