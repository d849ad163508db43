"""Comparison of evaluated recipes: accuracy, latency and size of the files that they would serve."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from vinegrape_handler.errors import SettingError
from vinegrape_handler.networks import load_network
from vinegrape_handler.settings import WorkerSettings
from vinegrape_handler.weights import DEFAULT_WEIGHTS, WEIGHTS_FILES
from vinegrape_training.evaluation.plots import draw_tradeoff
from vinegrape_training.evaluation.report import Report
from vinegrape_training.experiments.cross_validation import first_weights
from vinegrape_training.experiments.timing import time_in_turns

COMPARISON_FILE = "comparison.json"


@dataclass(frozen=True)
class Candidate:
    """One recipe that could be served.

    Attributes:
        name: folder name of its evaluation.
        architecture: timm's name.
        pretrained: training started from ImageNet weights.
        input_size: width and height of the input in pixels.
        accuracy: of the trained networks in cross-validation, 0 to 1.
        accuracy_95: its 95 % interval.
        int8_accuracy: of the int8 files in cross-validation, 0 to 1.
        int8_latency_ms: median latency of one image on one thread.
        relative_latency: median, over the rounds, of its latency over that of the first candidate.
        weights_mb: compressed size of an archive's weights.
    """

    name: str
    architecture: str
    pretrained: bool
    input_size: int
    accuracy: float
    accuracy_95: tuple[float, float]
    int8_accuracy: float
    int8_latency_ms: float
    relative_latency: float
    weights_mb: float


def compare(evaluations: Sequence[Path], folder: Path) -> list[Candidate]:
    """Compare evaluations, measure latency and size of their int8 files, and write a table and a plot.

    Args:
        evaluations: folders that `cross_validate` wrote, with int8.
        folder: for `comparison.json`, `comparison.md` and `comparison.png`.

    Raises:
        SettingError: a folder holds no evaluation, or one without int8.
    """
    reports = [Report.read(evaluation) for evaluation in evaluations]
    for evaluation, report in zip(evaluations, reports, strict=True):
        if report.int8 is None:
            raise SettingError(f"{evaluation} was evaluated without int8. Evaluate again with --int8.")
    weights = [first_weights(evaluation, report) for evaluation, report in zip(evaluations, reports, strict=True)]
    networks = [load_network(files, "onnx_int8", WorkerSettings(threads=1), "cpu") for files in weights]
    times = time_in_turns(networks, [report.recipe["input_size"] for report in reports])
    candidates = [
        Candidate(
            name=evaluation.name,
            architecture=report.recipe["model"]["architecture"],
            pretrained=report.recipe["weights"] != "none",
            input_size=report.recipe["input_size"],
            accuracy=report.accuracy,
            accuracy_95=report.accuracy_95,
            int8_accuracy=(report.int8 or {})["accuracy"],
            int8_latency_ms=1000 * float(np.median(times[:, number])),
            relative_latency=float(np.median(times[:, number] / times[:, 0])),
            weights_mb=_compressed_bytes(weights[number]) / 1e6,
        )
        for number, (evaluation, report) in enumerate(zip(evaluations, reports, strict=True))
    ]
    folder.mkdir(parents=True, exist_ok=True)
    values = [asdict(candidate) for candidate in candidates]
    (folder / COMPARISON_FILE).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    (folder / "comparison.md").write_text(table(candidates) + "\n", encoding="utf-8")
    draw_tradeoff(
        [f"{c.architecture}, {c.input_size} px" for c in candidates],
        [c.int8_latency_ms for c in candidates],
        [c.accuracy for c in candidates],
        [c.accuracy_95 for c in candidates],
        folder / "comparison.png",
    )
    return candidates


def table(candidates: Sequence[Candidate]) -> str:
    """Format the candidates as a Markdown table, the fastest first."""
    lines = [
        "| network | pretrained on | input, px | accuracy | 95 % interval | int8 accuracy | ms per image "
        "| relative latency | MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for c in sorted(candidates, key=lambda candidate: candidate.relative_latency):
        low, high = c.accuracy_95
        lines.append(
            f"| `{c.architecture}` | {'ImageNet' if c.pretrained else 'none'} | {c.input_size} | {c.accuracy:.2%} "
            f"| {low:.1%} to {high:.1%} | {c.int8_accuracy:.2%} | {c.int8_latency_ms:.1f} | {c.relative_latency:.2f} "
            f"| {c.weights_mb:.1f} |"
        )
    return "\n".join(lines)


def _compressed_bytes(weights: Path) -> int:
    with TemporaryDirectory() as temporary:
        path = Path(temporary) / "weights.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for backend in DEFAULT_WEIGHTS:
                archive.write(weights / WEIGHTS_FILES[backend], WEIGHTS_FILES[backend])
        return path.stat().st_size
