"""What accuracy costs: evaluated recipes beside the time and the size of what they would serve."""

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
        name: of its evaluation's folder.
        architecture: timm's name.
        pretrained: whether it started from weights of ImageNet.
        input_size: pixels a side.
        accuracy, accuracy_95: as trained, in 0 to 1, by cross-validation.
        int8_accuracy: the same of the int8 files.
        int8_latency_ms: the median of one image on one thread.
        relative_latency: the median, over the rounds, of its latency over the first candidate's.
        weights_mb: what an archive's weights take, compressed.
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
    """Put evaluations side by side, measure what serving them costs, and write a table and a plot.

    Times are taken in turns, so that what else runs on the machine meets all alike.

    Args:
        evaluations: folders that `cross_validate` wrote, with int8.
        folder: to write `comparison.json`, `comparison.md` and `comparison.png` into.

    Raises:
        SettingError: a folder without an evaluation, or one without int8.
    """
    reports = [Report.read(evaluation) for evaluation in evaluations]
    for evaluation, report in zip(evaluations, reports, strict=True):
        if report.int8 is None:
            raise SettingError(f"{evaluation} was evaluated without int8; run it again with --int8.")
    weights = [first_weights(evaluation, report) for evaluation, report in zip(evaluations, reports, strict=True)]
    networks = [load_network(each, "onnx_int8", WorkerSettings(threads=1), "cpu") for each in weights]
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
    """The candidates in Markdown, the cheapest first."""
    lines = [
        "| network | started from | side, px | accuracy | 95 % interval | int8 | ms an image | times the first | MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for c in sorted(candidates, key=lambda candidate: candidate.relative_latency):
        low, high = c.accuracy_95
        lines.append(
            f"| `{c.architecture}` | {'ImageNet' if c.pretrained else 'nothing'} | {c.input_size} | {c.accuracy:.2%} "
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
