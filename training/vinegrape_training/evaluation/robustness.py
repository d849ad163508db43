"""How well a network classifies corrupted images of leaves, and which foreign images it takes for leaves."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vinegrape_handler.errors import SettingError
from vinegrape_handler.images.resize import resize
from vinegrape_handler.metadata import Interpolation
from vinegrape_training.data.dataset import Dataset
from vinegrape_training.data.transparency import is_transparent, on_white, read_rgba
from vinegrape_training.evaluation import abstention
from vinegrape_training.evaluation.abstention import ForeignFigures
from vinegrape_training.evaluation.calibration import calibration_error
from vinegrape_training.evaluation.corruptions import CORRUPTIONS, Corruption
from vinegrape_training.progress import progress

ROBUSTNESS_FILE = "robustness.json"
CLEAN = "clean"

Score = Literal["ood_score", "one minus the probability"]
"""What says how foreign an image is: the network's own score, or, if it has none, 1 - its highest probability."""

Classify = Callable[[int, NDArray[np.uint8]], "Predictions"]
"""Classifies variants of one image: its index in the data set, and uint8 [V, S, S, 3]; see `Predictions`."""


class Predictions(NamedTuple):
    """What R networks, one per seed, compute for V variants of an image.

    Attributes:
        probabilities: float32 [R, V, C].
        scores: out-of-distribution scores, float32 [R, V]; None if the networks compute none.
    """

    probabilities: NDArray[np.float32]
    scores: NDArray[np.float32] | None


@dataclass(frozen=True)
class Condition:
    """A corruption at one strength, or the clean image.

    Attributes:
        corruption: None for the clean image.
        strength: see `Corruption.parameter`; 0 for the clean image.
    """

    corruption: Corruption | None
    strength: float

    @property
    def name(self) -> str:
        """The corruption's name, or "clean"."""
        return self.corruption.name if self.corruption else CLEAN

    @property
    def label(self) -> str:
        """Name and strength, such as "dark 0.6", or "clean"."""
        return f"{self.corruption.name} {self.strength:g}" if self.corruption else CLEAN

    @property
    def required(self) -> bool:
        """Whether at least 95 % known and 95 % right are required under this condition: see docs/model.md."""
        return self.corruption is None or self.strength == self.corruption.required


def conditions(*, required_only: bool = False) -> tuple[Condition, ...]:
    """List the clean image and all corruptions at all strengths, or only at the required strengths."""
    every = [Condition(corruption, strength) for corruption in CORRUPTIONS for strength in corruption.strengths]
    return (Condition(None, 0), *(condition for condition in every if condition.required or not required_only))


@dataclass(frozen=True)
class Measurement:
    """The predictions of all images under all conditions.

    Attributes:
        conditions: the K conditions; the first is the clean image.
        labels: int64 [N].
        probabilities: float32 [K, R, N, C].
        scores: float32 [K, R, N]; None if the networks compute none.
        measured: bool [K, N]: False where an image has no transparent background, which the condition needs.
    """

    conditions: tuple[Condition, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    scores: NDArray[np.float32] | None
    measured: NDArray[np.bool_]


def measure(
    dataset: Dataset, side: int, interpolation: Interpolation, classify: Classify, tested: Sequence[Condition]
) -> Measurement:
    """Classify each image under each condition. One image is in memory at a time.

    Args:
        dataset: the images of leaves.
        side: pixels per side of the network's input.
        interpolation: of the resizing.
        classify: the networks.
        tested: the conditions; the first is the clean image.

    Raises:
        DataError: an image cannot be decoded.
    """
    measured = np.ones((len(tested), len(dataset.paths)), dtype=np.bool_)
    answers = []
    for index, path in enumerate(progress(dataset.paths, "Classifying corrupted images")):
        image = read_rgba(dataset.folder / path)
        has_background = is_transparent(image)
        variants = np.empty((len(tested), side, side, 3), dtype=np.uint8)
        for row, condition in enumerate(tested):
            corruption = condition.corruption
            measured[row, index] = corruption is None or has_background or not corruption.needs_alpha
            usable = corruption is not None and measured[row, index]
            corrupted = corruption.apply(image, condition.strength) if corruption and usable else on_white(image)
            variants[row] = resize(corrupted, side, interpolation)
        answers.append(classify(index, variants))
    scores = [answer.scores for answer in answers if answer.scores is not None]
    return Measurement(
        conditions=tuple(tested),
        labels=np.array(dataset.labels, dtype=np.int64),
        probabilities=np.stack([answer.probabilities for answer in answers]).transpose(2, 1, 0, 3),
        scores=np.stack(scores).transpose(2, 1, 0) if scores else None,
        measured=measured,
    )


@dataclass(frozen=True)
class Row:
    """The figures of one condition, over all images and seeds. Shares lie between 0 and 1.

    Attributes:
        corruption: its name, or "clean".
        strength: of the corruption; 0 for clean images.
        required: see `Condition.required`.
        images: number of images.
        accuracy: share of correct predictions, whether known or not.
        known: share of predictions whose score is at most the threshold.
        accuracy_of_known: share of correct predictions among them; None if there are none.
        calibration_error: expected calibration error, 15 bins.
    """

    corruption: str
    strength: float
    required: bool
    images: int
    accuracy: float
    known: float
    accuracy_of_known: float | None
    calibration_error: float


def rows(
    measurement: Measurement,
    probabilities: NDArray[np.floating],
    scores: NDArray[np.floating],
    thresholds: NDArray[np.floating],
) -> tuple[Row, ...]:
    """Compute the figures of each condition.

    Args:
        measurement: conditions and labels.
        probabilities: calibrated, float [K, R, N, C].
        scores: float [K, R, N]; see `Score`.
        thresholds: float [R, N]: an image is known if its score is at most this number.
    """
    return tuple(
        _row(condition, measurement, measurement.measured[index], probabilities[index], scores[index] <= thresholds)
        for index, condition in enumerate(measurement.conditions)
        if measurement.measured[index].any()
    )


def _row(
    condition: Condition,
    measurement: Measurement,
    measured: NDArray[np.bool_],
    probabilities: NDArray[np.floating],
    known: NDArray[np.bool_],
) -> Row:
    """Compute the figures of one condition from probabilities [R, N, C] and what is known [R, N]."""
    labels = np.tile(measurement.labels[measured], len(known))
    values = probabilities[:, measured].reshape(len(labels), -1)
    is_known = known[:, measured].ravel()
    correct = values.argmax(axis=1) == labels
    return Row(
        corruption=condition.name,
        strength=condition.strength,
        required=condition.required,
        images=int(measured.sum()),
        accuracy=float(correct.mean()),
        known=float(is_known.mean()),
        accuracy_of_known=float(correct[is_known].mean()) if is_known.any() else None,
        calibration_error=calibration_error(values, labels),
    )


@dataclass(frozen=True)
class Robustness:
    """What `vinegrape robustness` measures, and writes to `robustness.json`.

    Attributes:
        source: "evaluation" if each image was classified by networks that were not trained on it, or "archive", whose
            network may have been trained on the images.
        model: version of the archive; empty for an evaluation.
        data_digest: `dataset.Dataset.digest` of the leaves.
        seeds: number of networks per image.
        score: see `Score`.
        threshold: of the score; the mean of all thresholds if each fold has its own.
        rows: one per condition, the clean images first.
        foreign: kind to figures; None if no foreign images were measured.
    """

    source: Literal["archive", "evaluation"]
    model: str
    data_digest: str
    seeds: int
    score: Score
    threshold: float
    rows: tuple[Row, ...]
    foreign: dict[str, ForeignFigures] | None = None

    def write(self, folder: Path) -> None:
        """Write `robustness.json` to a folder."""
        (folder / ROBUSTNESS_FILE).write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Robustness:
        """Read a file that `write` wrote.

        Raises:
            SettingError: it is not such a file, or another version of vinegrape wrote it.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            values["rows"] = tuple(Row(**row) for row in values["rows"])
            if values["foreign"] is not None:
                values["foreign"] = {kind: ForeignFigures(**figures) for kind, figures in values["foreign"].items()}
            return cls(**values)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SettingError(
                f"{path} is not a {ROBUSTNESS_FILE} that this version of vinegrape reads ({error!r}). "
                "Measure again: vinegrape robustness"
            ) from error

    def metrics(self) -> dict[str, float]:
        """Return what a model card quotes, under the names in `run.json` and `metadata.json`.

        That is, for each required condition, `robustness_<corruption>_<strength>_<figure>`, without the
        strength for clean images, and what `abstention.as_metrics` returns. If the networks compute no OOD score, only
        accuracies are returned, because the archive cannot abstain.
        """
        values: dict[str, float | None] = {}
        for row in self.rows:
            if row.required:
                values[f"{_metric_prefix(row.corruption, row.strength)}accuracy"] = row.accuracy
                if self.score == "ood_score":
                    values[f"{_metric_prefix(row.corruption, row.strength)}known"] = row.known
                    values[f"{_metric_prefix(row.corruption, row.strength)}accuracy_of_known"] = row.accuracy_of_known
        if self.foreign and self.score == "ood_score":
            values |= abstention.as_metrics(self.foreign)
        return {name: value for name, value in values.items() if value is not None}

    def table(self) -> str:
        """Format the figures as aligned text."""
        lines = [self.note(), "", f"{'':24}{'accuracy':>9}{'known':>8}{'of them right':>15}{'ECE':>7}"]
        for row in self.rows:
            label = row.corruption if row.corruption == CLEAN else f"{row.corruption} {row.strength:g}"
            right = "" if row.accuracy_of_known is None else f"{row.accuracy_of_known:.1%}"
            mark = "*" if row.required else " "
            lines.append(
                f"{mark} {label:22}{row.accuracy:>9.1%}{row.known:>8.1%}{right:>15}{row.calibration_error:>7.3f}"
            )
        lines += ["", "* required: at least 95 % known and 95 % right, see docs/model.md"]
        if self.foreign:
            lines += ["", f"{'foreign images':24}{'images':>9}{'passed':>8}{'AUROC':>15}"]
            lines += [
                f"  {kind:22}{figures.images:>9}{figures.passed:>8.1%}{figures.auroc:>15.3f}"
                for kind, figures in self.foreign.items()
            ]
        return "\n".join(lines)

    def note(self) -> str:
        """State in a few sentences what was measured and how."""
        images = f"{self.rows[0].images} images, {self.seeds} network{'s' if self.seeds > 1 else ''} per image."
        if self.source == "evaluation":
            images += " No network was trained on the images that it classifies."
        else:
            images += " The network may have been trained on these images: accuracy on new images may be lower."
        if self.score == "ood_score":
            return f"{images} An image is known if its OOD score is at most {self.threshold:.3f}."
        return (
            f"{images} The model computes no OOD score. Known means here that 1 - its highest probability is at most "
            f"{self.threshold:.3f}."
        )


@dataclass(frozen=True)
class QuotedRow:
    """The figures of one condition that a model card quotes; see `Row`. None means that a figure was not measured."""

    condition: Condition
    accuracy: float
    known: float | None
    accuracy_of_known: float | None


def from_metrics(metrics: Mapping[str, float]) -> list[QuotedRow]:
    """Read the figures that `Robustness.metrics` returned from `metadata.json`; empty if none were measured."""
    quoted = []
    for condition in conditions(required_only=True):
        prefix = _metric_prefix(condition.name, condition.strength)
        if f"{prefix}accuracy" in metrics:
            figures = (metrics.get(f"{prefix}{name}") for name in ("known", "accuracy_of_known"))
            quoted.append(QuotedRow(condition, metrics[f"{prefix}accuracy"], *figures))
    return quoted


def metrics_in(folder: Path) -> dict[str, float]:
    """Return `Robustness.metrics` of the `robustness.json` in a folder; empty if there is none."""
    path = folder / ROBUSTNESS_FILE
    return Robustness.read(path).metrics() if path.is_file() else {}


def _metric_prefix(corruption: str, strength: float) -> str:
    return f"robustness_{corruption}_" if corruption == CLEAN else f"robustness_{corruption}_{strength:g}_"


def scores_of(
    probabilities: NDArray[np.floating], own_scores: NDArray[np.floating] | None
) -> tuple[NDArray[np.floating], Score]:
    """Return the score of each prediction, float [...], and which score it is.

    Args:
        probabilities: float [..., C].
        own_scores: the networks' own scores, float [...]; None if they compute none.
    """
    if own_scores is not None:
        return own_scores, "ood_score"
    return 1 - probabilities.max(axis=-1), "one minus the probability"


def strengths(rows_: Sequence[Row]) -> Mapping[str, list[Row]]:
    """Group rows by corruption, without the clean images, in the order of the rows."""
    grouped: dict[str, list[Row]] = {}
    for row in rows_:
        if row.corruption != CLEAN:
            grouped.setdefault(row.corruption, []).append(row)
    return grouped
