"""A trained network on images that it has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vinegrape_training.evaluation.calibration import calibration_error, wilson_interval
from vinegrape_training.files import atomic_write


@dataclass(frozen=True)
class Evaluation:
    """Answers to labelled images.

    Attributes:
        logits: float32 [N, classes].
        labels: int64 [N].
    """

    logits: Tensor
    labels: Tensor

    @property
    def accuracy(self) -> float:
        """The share of right answers."""
        return float((self.logits.argmax(dim=1) == self.labels).double().mean())

    def write(self, path: Path) -> None:
        """Write both arrays as an npz file."""
        with atomic_write(path) as partial:
            np.savez(partial, logits=self.logits.numpy(), labels=self.labels.numpy())

    @classmethod
    def read(cls, path: Path) -> Evaluation:
        """Read what `write` wrote."""
        with np.load(path) as arrays:
            return cls(torch.from_numpy(arrays["logits"]), torch.from_numpy(arrays["labels"]))

    def confusion(self) -> NDArray[np.int64]:
        """Count images: int64 [classes, classes], a row a true class, a column an answer."""
        count = self.logits.shape[1]
        pairs = count * self.labels + self.logits.argmax(dim=1)
        counts: NDArray[np.int64] = torch.bincount(pairs, minlength=count * count).reshape(count, count).numpy()
        return counts

    def calibration_error(self, temperature: float) -> float:
        """The expected calibration error of the probabilities at a temperature, 0 to 1."""
        probabilities = (self.logits.double() / temperature).softmax(dim=1)
        return calibration_error(probabilities.numpy(), self.labels.numpy())

    def metrics(self, classes: Sequence[str], temperature: float) -> dict[str, float]:
        """The figures of a test: shares in 0 to 1, and the number of images."""
        confusion = self.confusion()
        total = len(self.labels)
        low, high = wilson_interval(int(confusion.trace()), total)
        figures = {
            "test_accuracy": self.accuracy,
            "test_accuracy_low_95": low,
            "test_accuracy_high_95": high,
            "test_images": float(total),
            "test_calibration_error_before": self.calibration_error(1.0),
            "test_calibration_error": self.calibration_error(temperature),
        }
        recalls = confusion.diagonal() / confusion.sum(axis=1)
        return figures | {f"test_recall_{name}": float(recall) for name, recall in zip(classes, recalls, strict=True)}
