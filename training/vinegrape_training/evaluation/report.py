"""What cross-validation found out about a recipe: `evaluation.json`, quoted by training, the model card and docs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vinegrape_handler.errors import SettingError
from vinegrape_training.evaluation.calibration import calibration_error, fit_temperature, risk_coverage, wilson_interval
from vinegrape_training.evaluation.out_of_fold import OutOfFold

REPORT_FILE = "evaluation.json"

_COVERAGES = [*(step / 20 for step in range(1, 18)), 0.9, 0.92, 0.94, 0.96, 0.98, 1.0]
_NAMED = 10  # wrong images that a table lists


@dataclass(frozen=True)
class Report:
    """Figures of images that the network was not trained on; shares lie in 0 to 1.

    Attributes:
        recipe: what was evaluated, as `recipe` gives it.
        classes: names.
        images: how many.
        data_digest: `dataset.Dataset.digest` of them.
        seeds, folds: how often the images were dealt into how many parts.
        accuracy: the mean over the seeds.
        accuracy_95: its 95 % Wilson interval, as if there were one seed: more seeds add no images.
        accuracy_by_seed: a seed's name to its accuracy.
        recall: a class to its recall.
        confusion: [classes][classes] counts over all seeds, a row a true class.
        wrong: an image to what it was taken for, once for each seed in which it was; the wrongest first.
        temperature: fitted on all answers: what the network that ships divides its logits by.
        log_loss: with the temperature fitted on the other folds.
        calibration_error_before: expected calibration error, 15 bins, of the logits as they are.
        calibration_error: the same, with the temperature fitted on the other folds.
        risk_coverage: {"coverage", "risk", "confidence"}: the part of the images that is answered, the part of the
            answers that is wrong, and the least confidence among them.
        int8: {"accuracy", "calibration_error", "more_wrong"} of the int8 files; more_wrong is by seed, an amount of
            images. None where no int8 files were made.
    """

    recipe: dict[str, Any]
    classes: tuple[str, ...]
    images: int
    data_digest: str
    seeds: tuple[int, ...]
    folds: int
    accuracy: float
    accuracy_95: tuple[float, float]
    accuracy_by_seed: dict[str, float]
    recall: dict[str, float]
    confusion: list[list[int]]
    wrong: dict[str, list[str]]
    temperature: float
    log_loss: float
    calibration_error_before: float
    calibration_error: float
    risk_coverage: list[dict[str, float]]
    int8: dict[str, Any] | None

    @classmethod
    def of(
        cls,
        made: OutOfFold,
        classes: tuple[str, ...],
        data_digest: str,
        made_by: Mapping[str, Any],
    ) -> Report:
        """Work out every figure from the answers; arguments as the attributes, `made_by` the recipe."""
        seeds, count, outputs = made.logits.shape
        right = (made.logits.argmax(dim=2) == made.labels).double()
        labels = made.labels.repeat(seeds)
        pooled = made.logits.reshape(-1, outputs)
        confusion = torch.bincount(outputs * labels + pooled.argmax(dim=1), minlength=outputs**2).view(outputs, -1)
        probabilities = made.probabilities(made.logits).reshape(-1, outputs)
        flat = labels.numpy()
        recalls = confusion.diagonal() / confusion.sum(dim=1)
        return cls(
            recipe=dict(made_by),
            classes=classes,
            images=count,
            data_digest=data_digest,
            seeds=made.seeds,
            folds=int(made.folds.max()) + 1,
            accuracy=float(right.mean()),
            accuracy_95=wilson_interval(float(right.mean()) * count, count),
            accuracy_by_seed={str(s): float(r.mean()) for s, r in zip(made.seeds, right, strict=True)},
            recall={name: float(recall) for name, recall in zip(classes, recalls, strict=True)},
            confusion=confusion.tolist(),
            wrong=made.wrong(classes),
            temperature=fit_temperature(pooled, labels),
            log_loss=float(-np.log(probabilities[np.arange(len(flat)), flat]).mean()),
            calibration_error_before=calibration_error(pooled.double().softmax(dim=1).numpy(), flat),
            calibration_error=calibration_error(probabilities, flat),
            risk_coverage=risk_coverage(probabilities, flat, _COVERAGES),
            int8=_int8(made, right),
        )

    def write(self, folder: Path) -> None:
        """Write `evaluation.json` into a folder."""
        (folder / REPORT_FILE).write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Report:
        """Read the report in a folder.

        Raises:
            SettingError: there is none, or one of another version.
        """
        path = folder / REPORT_FILE
        if not path.is_file():
            raise SettingError(f"{folder} holds no {REPORT_FILE}; make it: vinegrape evaluate {folder} data.dir=FOLDER")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            for name in ("classes", "seeds", "accuracy_95"):
                values[name] = tuple(values[name])
            return cls(**values)
        except (ValueError, KeyError, TypeError) as error:
            raise SettingError(f"{path} is not what this version of vinegrape writes: {error!r}.") from error

    def metrics(self) -> dict[str, float]:
        """The figures under the names that `Evaluation.metrics` gives to those of a test."""
        low, high = self.accuracy_95
        figures = {
            "test_images": float(self.images),
            "test_accuracy": self.accuracy,
            "test_accuracy_low_95": low,
            "test_accuracy_high_95": high,
            "test_calibration_error_before": self.calibration_error_before,
            "test_calibration_error": self.calibration_error,
            "cross_validation_folds": float(self.folds),
            "cross_validation_seeds": float(len(self.seeds)),
        }
        if self.int8:
            figures["test_accuracy_onnx_int8"] = self.int8["accuracy"]
            figures["test_calibration_error_onnx_int8"] = self.int8["calibration_error"]
        return figures | {f"test_recall_{name}": recall for name, recall in self.recall.items()}

    def table(self) -> str:
        """The figures for people to read."""
        low, high = self.accuracy_95
        seeds = ", ".join(f"{accuracy:.2%} (seed {seed})" for seed, accuracy in self.accuracy_by_seed.items())
        rows = [
            ("images, folds, seeds", f"{self.images}, {self.folds}, {len(self.seeds)}"),
            ("accuracy", f"{self.accuracy:.2%}; 95 % interval {low:.1%} to {high:.1%}; {seeds}"),
            *((f"recall of {name}", f"{recall:.1%}") for name, recall in self.recall.items()),
            ("log loss", f"{self.log_loss:.3f}"),
            ("calibration error", f"{self.calibration_error:.3f}; {self.calibration_error_before:.3f} before"),
            ("temperature", f"{self.temperature:.3f}"),
        ]
        if self.int8:
            more = ", ".join(f"{count:+d} wrong (seed {seed})" for seed, count in self.int8["more_wrong"].items())
            rows.append(("int8", f"{self.int8['accuracy']:.2%}; against the trained networks {more}"))
        for path, classes in list(self.wrong.items())[:_NAMED]:
            rows.append(("wrong", f"{path}, taken for {', '.join(classes)}"))
        if len(self.wrong) > _NAMED:
            rows.append(("", f"and {len(self.wrong) - _NAMED} more images, in {REPORT_FILE}"))
        return "\n".join(f"{name:26}{value}" for name, value in rows)


def _int8(made: OutOfFold, right: Tensor) -> dict[str, Any] | None:
    """What quantisation costs: `right` is [seeds, N], 1 where the trained networks are."""
    if made.int8 is None:
        return None
    int8_right = (made.int8.argmax(dim=2) == made.labels).double()
    probabilities = made.probabilities(made.int8).reshape(-1, made.int8.shape[2])
    more_wrong = (right.sum(dim=1) - int8_right.sum(dim=1)).int().tolist()
    return {
        "accuracy": float(int8_right.mean()),
        "calibration_error": calibration_error(probabilities, made.labels.repeat(len(made.seeds)).numpy()),
        "more_wrong": {str(seed): count for seed, count in zip(made.seeds, more_wrong, strict=True)},
    }
