"""The result of a cross-validation, `evaluation.json`, which training, the model card and the documentation quote."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from vinegrape_handler.errors import ArchiveError, SettingError
from vinegrape_handler.reference import Reference
from vinegrape_training.evaluation.abstention import auroc, choose_threshold
from vinegrape_training.evaluation.calibration import calibration_error, fit_temperature, risk_coverage, wilson_interval
from vinegrape_training.evaluation.figures import TestFigures, confusion_matrix, recall_by_class
from vinegrape_training.evaluation.out_of_fold import OutOfFold
from vinegrape_training.files import REPORT_FILE

_COVERAGES = [*(step / 20 for step in range(1, 18)), 0.9, 0.92, 0.94, 0.96, 0.98, 1.0]
_LISTED_IMAGES = 10  # misclassified images in the printed table


@dataclass(frozen=True)
class Report:
    """Figures of predictions on images that the network was not trained on. Shares lie between 0 and 1.

    Attributes:
        recipe: the configuration that was evaluated, as `fit.recipe.recipe` returns it.
        classes: names, in the order of the network's outputs.
        images: number of images.
        data_digest: `dataset.Dataset.digest` of the images.
        seeds: one split into folds per seed.
        folds: number of folds per split.
        accuracy: mean over the seeds.
        accuracy_95: its 95 % Wilson interval, computed as for one seed, because more seeds do not add images.
        accuracy_by_seed: seed, as text, to accuracy.
        recall: class name to recall.
        confusion: [classes][classes] counts over all seeds, one row per true class.
        wrong: image path to the wrongly predicted classes, one per seed in which the prediction was wrong.
        temperature: fitted on all predictions. The network that ships divides its logits by it.
        log_loss: mean over all predictions; each fold's temperature is fitted on the other folds.
        calibration_error_before: expected calibration error, 15 bins, without a temperature.
        calibration_error: the same; each fold's temperature is fitted on the other folds.
        risk_coverage: what `calibration.risk_coverage` returns.
        int8: {"accuracy", "calibration_error", "more_wrong"} of the int8 files. more_wrong is seed to the number of
            additional wrong images. None if no int8 files were made.
        abstention: what the int8 files know, None without outliers: "threshold" of the OOD score for the network that
            ships, chosen on all scores; with thresholds chosen on the other folds "known", the share of the images
            that are known, "accuracy", the share of correct predictions among them, and "kinds": kind of outlier to
            {"images", "new_source", "new_species"}, the last two with {"passed", "auroc"} as in `abstention`.
        reference: the distributions of predictions and images, for drift. None in a report that has no images.
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
    abstention: dict[str, Any] | None = None
    reference: Reference | None = None

    @classmethod
    def of(
        cls, predictions: OutOfFold, classes: tuple[str, ...], data_digest: str, recipe: Mapping[str, Any]
    ) -> Report:
        """Compute all figures from the predictions; the other arguments are as the attributes."""
        seeds, count, outputs = predictions.logits.shape
        correct = (predictions.logits.argmax(dim=2) == predictions.labels).double()
        accuracy = float(correct.mean())
        all_labels = predictions.labels.repeat(seeds)
        all_logits = predictions.logits.reshape(-1, outputs)
        confusion = confusion_matrix(all_logits.argmax(dim=1), all_labels, outputs)
        probabilities = predictions.probabilities(predictions.logits).reshape(-1, outputs)
        labels = all_labels.numpy()
        return cls(
            recipe=dict(recipe),
            classes=classes,
            images=count,
            data_digest=data_digest,
            seeds=predictions.seeds,
            folds=int(predictions.folds.max()) + 1,
            accuracy=accuracy,
            accuracy_95=wilson_interval(accuracy * count, count),
            accuracy_by_seed={str(s): float(c.mean()) for s, c in zip(predictions.seeds, correct, strict=True)},
            recall=recall_by_class(confusion, classes),
            confusion=confusion.tolist(),
            wrong=predictions.misclassified(classes),
            temperature=fit_temperature(all_logits, all_labels),
            log_loss=float(-np.log(probabilities[np.arange(len(labels)), labels]).mean()),
            calibration_error_before=calibration_error(all_logits.double().softmax(dim=1).numpy(), labels),
            calibration_error=calibration_error(probabilities, labels),
            risk_coverage=risk_coverage(probabilities, labels, _COVERAGES),
            int8=_int8_figures(predictions, correct),
            abstention=_abstention_figures(predictions),
        )

    @property
    def ood_threshold(self) -> float | None:
        """The threshold of the OOD score for the network that ships; None without outliers."""
        return self.abstention["threshold"] if self.abstention else None

    def write(self, folder: Path) -> None:
        """Write `evaluation.json` to a folder."""
        (folder / REPORT_FILE).write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Report:
        """Read the report in a folder.

        Raises:
            SettingError: the folder holds no report, or one that another version of vinegrape wrote.
        """
        path = folder / REPORT_FILE
        if not path.is_file():
            raise SettingError(
                f"{folder} holds no {REPORT_FILE}. To create it, run: vinegrape evaluate {folder} data.dir=FOLDER"
            )
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            for name in ("classes", "seeds", "accuracy_95"):
                values[name] = tuple(values[name])
            if values.get("reference"):
                values["reference"] = Reference.from_json(values["reference"])
            return cls(**values)
        except (ValueError, KeyError, TypeError, ArchiveError) as error:
            raise SettingError(
                f"{path} does not have the fields that this version of vinegrape reads ({error!r}). Evaluate again."
            ) from error

    def figures(self) -> TestFigures:
        """Return the figures that a run and a model card quote."""
        int8 = self.int8 or {}
        return TestFigures(
            images=self.images,
            accuracy=self.accuracy,
            accuracy_95=self.accuracy_95,
            calibration_error_before=self.calibration_error_before,
            calibration_error=self.calibration_error,
            recall=self.recall,
            int8_accuracy=int8.get("accuracy"),
            int8_calibration_error=int8.get("calibration_error"),
            folds=self.folds,
            seeds=len(self.seeds),
        )

    def metrics(self) -> dict[str, float]:
        """Return the figures under their names in `run.json`."""
        return self.figures().to_metrics()

    def table(self) -> str:
        """Format the figures as aligned text."""
        low, high = self.accuracy_95
        by_seed = ", ".join(f"{accuracy:.2%} (seed {seed})" for seed, accuracy in self.accuracy_by_seed.items())
        rows = [
            ("images, folds, seeds", f"{self.images}, {self.folds}, {len(self.seeds)}"),
            ("accuracy", f"{self.accuracy:.2%}; 95 % interval {low:.1%} to {high:.1%}; {by_seed}"),
            *((f"recall of {name}", f"{recall:.1%}") for name, recall in self.recall.items()),
            ("log loss", f"{self.log_loss:.3f}"),
            (
                "calibration error",
                f"{self.calibration_error:.3f}; {self.calibration_error_before:.3f} without temperature",
            ),
            ("temperature", f"{self.temperature:.3f}"),
        ]
        if self.int8:
            more = ", ".join(f"{count:+d} (seed {seed})" for seed, count in self.int8["more_wrong"].items())
            rows.append(("int8 accuracy", f"{self.int8['accuracy']:.2%}; wrong images compared with float32: {more}"))
        if self.abstention:
            rows.append(
                ("known", f"{self.abstention['known']:.2%}, of which {self.abstention['accuracy']:.2%} correct")
            )
            for kind, figures in self.abstention["kinds"].items():
                texts = [
                    f"{figures[seen]['passed']:.1%} pass, AUROC {figures[seen]['auroc']:.4f} ({name})"
                    for seen, name in (("new_source", "new source"), ("new_species", "new species"))
                ]
                rows.append((f"{kind}, {figures['images']}", "; ".join(texts)))
        for path, predicted in list(self.wrong.items())[:_LISTED_IMAGES]:
            rows.append(("misclassified", f"{path}, predicted as {', '.join(predicted)}"))
        if len(self.wrong) > _LISTED_IMAGES:
            rows.append(("", f"and {len(self.wrong) - _LISTED_IMAGES} more images, listed in {REPORT_FILE}"))
        return "\n".join(f"{name:26}{value}" for name, value in rows)


def _int8_figures(predictions: OutOfFold, correct: Tensor) -> dict[str, Any] | None:
    """Compare the int8 files with the trained networks; `correct`, [seeds, N], is 1 where those are correct."""
    if predictions.int8 is None:
        return None
    int8_correct = (predictions.int8.argmax(dim=2) == predictions.labels).double()
    probabilities = predictions.probabilities(predictions.int8).reshape(-1, predictions.int8.shape[2])
    more_wrong = (correct.sum(dim=1) - int8_correct.sum(dim=1)).int().tolist()
    return {
        "accuracy": float(int8_correct.mean()),
        "calibration_error": calibration_error(
            probabilities, predictions.labels.repeat(len(predictions.seeds)).numpy()
        ),
        "more_wrong": {str(seed): count for seed, count in zip(predictions.seeds, more_wrong, strict=True)},
    }


def _abstention_figures(predictions: OutOfFold) -> dict[str, Any] | None:
    """Compute `Report.abstention`."""
    if predictions.ood_scores is None or predictions.outliers is None or predictions.int8 is None:
        return None
    scores, outliers = predictions.ood_scores.numpy(), predictions.outliers
    known = scores <= predictions.thresholds()
    correct = (predictions.int8.argmax(dim=2) == predictions.labels).numpy()
    thresholds = predictions.outlier_thresholds()
    kinds = {}
    for kind in sorted(set(outliers.kinds)):
        of_kind = outliers.of_kind(kind)
        kinds[kind] = {"images": int(of_kind.sum())} | {
            name: {
                "passed": float((foreign[:, of_kind] <= thresholds[:, of_kind]).mean()),
                "auroc": float(np.mean([auroc(*pair) for pair in zip(scores, foreign[:, of_kind], strict=True)])),
            }
            for name, foreign in (("new_source", outliers.new_source), ("new_species", outliers.new_species))
        }
    return {
        "threshold": choose_threshold(scores.ravel(), outliers.by_kind(outliers.new_source)),
        "known": float(known.mean()),
        "accuracy": float(correct[known].mean()),
        "kinds": kinds,
    }
