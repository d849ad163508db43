"""The report of `vinegrape drift`: a file of JSON, and a plot per property."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from vinegrape_handler.reference import Reference
from vinegrape_server.archive_info import ArchiveInfo
from vinegrape_server.drift.statistic import Drift

_COLUMNS = 3


def write_report(
    folder: Path, info: ArchiveInfo, drifts: Mapping[str, Drift], images: int, failed: int
) -> tuple[Path, Path]:
    """Write `drift.json` and `drift.png` to a folder, and return their paths.

    Args:
        folder: it is created.
        info: of the archive, which has a reference.
        drifts: by property.
        images: how many were compared.
        failed: how many files were not images.
    """
    metadata = info.metadata
    if metadata.reference is None:
        raise ValueError("the archive has no reference")
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "model": {"name": metadata.name, "version": metadata.version},
        "images": images,
        "failed": failed,
        "has_drifted": any(each.has_drifted for each in drifts.values()),
        "properties": {
            name: {**dataclasses.asdict(each), "has_drifted": each.has_drifted, "bins": _bins(metadata.reference, name)}
            for name, each in drifts.items()
        },
    }
    text, plot = folder / "drift.json", folder / "drift.png"
    text.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    draw_distributions(metadata.reference, drifts).savefig(plot, dpi=120)
    return text, plot


def draw_distributions(reference: Reference, drifts: Mapping[str, Drift]) -> Figure:
    """Plot the shares of each bin in the reference and in the images, one panel per property."""
    rows = math.ceil(len(drifts) / _COLUMNS)
    figure = Figure(figsize=(4.5 * _COLUMNS, 3.2 * rows), layout="constrained")
    panels = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axes, (name, each) in zip(panels, drifts.items(), strict=False):
        places = range(len(each.counts))
        axes.bar([place - 0.2 for place in places], each.shares, width=0.4, label="reference", color="tab:gray")
        shares = [count / max(1, each.answers) for count in each.counts]
        axes.bar([place + 0.2 for place in places], shares, width=0.4, label="images", color="tab:green")
        axes.set_xticks(places, _bins(reference, name), rotation=45, ha="right", fontsize=7)
        state = "drift" if each.has_drifted else "no drift"
        axes.set_title(f"{name}: score {each.score:.2f}, threshold {each.threshold:.2f}, {state}", fontsize=9)
        axes.set_ylabel("share")
        axes.legend(fontsize=7)
    for axes in panels[len(drifts) :]:
        axes.set_axis_off()
    return figure


def _bins(reference: Reference, name: str) -> list[str]:
    """Return the names of a property's bins: labels, or upper ends."""
    if name not in reference.values:
        return list(reference.labels)
    edges = reference.values[name].edges
    return [*(f"to {edge:.4g}" for edge in edges), f"above {edges[-1]:.4g}"]
