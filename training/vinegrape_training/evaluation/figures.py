"""The figures of a test, which `run.json`, `metadata.json` and the model card quote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vinegrape_training.errors import ExportError


@dataclass(frozen=True)
class TestFigures:
    """Figures of predictions on images that the network was not trained on. Shares lie between 0 and 1.

    Attributes:
        images: number of test images.
        accuracy: share of correct predictions.
        accuracy_95: lower and upper end of its 95 % Wilson interval.
        calibration_error_before: expected calibration error without the temperature.
        calibration_error: the same with the temperature.
        recall: class name to the share of its images that is classified correctly.
        int8_accuracy: accuracy of the int8 file; None if it was not measured.
        int8_calibration_error: its calibration error; None if it was not measured.
        folds: number of folds of the cross-validation; None if a single split was tested.
        seeds: number of seeds of the cross-validation; None if a single split was tested.
    """

    __test__ = False  # pytest would collect a class of this name

    images: int
    accuracy: float
    accuracy_95: tuple[float, float]
    calibration_error_before: float
    calibration_error: float
    recall: dict[str, float]
    int8_accuracy: float | None = None
    int8_calibration_error: float | None = None
    folds: int | None = None
    seeds: int | None = None

    def to_metrics(self) -> dict[str, float]:
        """Convert to the metric names of `run.json` and `metadata.json`. Figures that are None are left out."""
        metrics = {
            "test_images": self.images,
            "test_accuracy": self.accuracy,
            "test_accuracy_low_95": self.accuracy_95[0],
            "test_accuracy_high_95": self.accuracy_95[1],
            "test_calibration_error_before": self.calibration_error_before,
            "test_calibration_error": self.calibration_error,
            "cross_validation_folds": self.folds,
            "cross_validation_seeds": self.seeds,
            "test_accuracy_onnx_int8": self.int8_accuracy,
            "test_calibration_error_onnx_int8": self.int8_calibration_error,
            **{f"test_recall_{name}": recall for name, recall in self.recall.items()},
        }
        return {name: float(value) for name, value in metrics.items() if value is not None}

    @classmethod
    def from_metrics(cls, metrics: Mapping[str, float], classes: Sequence[str]) -> TestFigures:
        """Convert from the metric names of `run.json` and `metadata.json`.

        Raises:
            ExportError: the network was never tested.
        """
        if "test_accuracy" not in metrics:
            raise ExportError(
                "The model has no test figures. Train it with data.test_fraction above 0 or with evaluation=FOLDER."
            )
        folds, seeds = metrics.get("cross_validation_folds"), metrics.get("cross_validation_seeds")
        return cls(
            images=int(metrics["test_images"]),
            accuracy=metrics["test_accuracy"],
            accuracy_95=(metrics["test_accuracy_low_95"], metrics["test_accuracy_high_95"]),
            calibration_error_before=metrics["test_calibration_error_before"],
            calibration_error=metrics["test_calibration_error"],
            recall={name: metrics[f"test_recall_{name}"] for name in classes},
            int8_accuracy=metrics.get("test_accuracy_onnx_int8"),
            int8_calibration_error=metrics.get("test_calibration_error_onnx_int8"),
            folds=None if folds is None else int(folds),
            seeds=None if seeds is None else int(seeds),
        )


def confusion_matrix(predictions: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Count images by true and predicted class.

    torchmetrics has the same function, but its import takes 5 s of CPU time.

    Args:
        predictions: int64 [N], predicted classes.
        labels: int64 [N], true classes.
        classes: the number of classes.

    Returns:
        int64 [classes, classes]: one row per true class, one column per predicted class.
    """
    return torch.bincount(classes * labels + predictions, minlength=classes**2).view(classes, classes)


def recall_by_class(confusion: Tensor, classes: Sequence[str]) -> dict[str, float]:
    """Compute the recall of each class from a confusion matrix: class name to recall, from 0 to 1."""
    recalls = confusion.diagonal().double() / confusion.sum(dim=1)
    return dict(zip(classes, recalls.tolist(), strict=True))
