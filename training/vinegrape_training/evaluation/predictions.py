"""The predictions of a trained network on labelled images that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vinegrape_training.evaluation.calibration import calibration_error, wilson_interval
from vinegrape_training.evaluation.figures import TestFigures, confusion_matrix, recall_by_class
from vinegrape_training.files import atomic_write


@dataclass(frozen=True)
class Evaluation:
    """Logits and labels of images.

    Attributes:
        logits: float32 [N, classes].
        labels: int64 [N].
        ood_scores: float32 [N]; None if the network computes none.
    """

    logits: Tensor
    labels: Tensor
    ood_scores: Tensor | None = None

    @property
    def accuracy(self) -> float:
        """The share of correct predictions, 0 to 1."""
        return float((self.logits.argmax(dim=1) == self.labels).double().mean())

    def write(self, path: Path) -> None:
        """Write the arrays as an npz file."""
        arrays: dict[str, Any] = {"logits": self.logits.numpy(), "labels": self.labels.numpy()}
        if self.ood_scores is not None:
            arrays["ood_scores"] = self.ood_scores.numpy()
        with atomic_write(path) as partial:
            np.savez(partial, **arrays)

    @classmethod
    def read(cls, path: Path) -> Evaluation:
        """Read a file that `write` wrote."""
        with np.load(path) as arrays:
            scores = torch.from_numpy(arrays["ood_scores"]) if "ood_scores" in arrays else None
            return cls(torch.from_numpy(arrays["logits"]), torch.from_numpy(arrays["labels"]), scores)

    def confusion(self) -> NDArray[np.int64]:
        """Count images: int64 [classes, classes], one row per true class, one column per predicted class."""
        counts: NDArray[np.int64] = self._confusion().numpy()
        return counts

    def figures(self, classes: Sequence[str], temperature: float) -> TestFigures:
        """Compute the figures of a test.

        Args:
            classes: names, in the order of the logits.
            temperature: what the logits are divided by.
        """
        confusion = self._confusion()
        return TestFigures(
            images=len(self.labels),
            accuracy=self.accuracy,
            accuracy_95=wilson_interval(int(confusion.trace()), len(self.labels)),
            calibration_error_before=self._calibration_error(1.0),
            calibration_error=self._calibration_error(temperature),
            recall=recall_by_class(confusion, classes),
        )

    def metrics(self, classes: Sequence[str], temperature: float) -> dict[str, float]:
        """Return the figures of a test under their names in `run.json`; arguments as for `figures`."""
        return self.figures(classes, temperature).to_metrics()

    def _confusion(self) -> Tensor:
        return confusion_matrix(self.logits.argmax(dim=1), self.labels, self.logits.shape[1])

    def _calibration_error(self, temperature: float) -> float:
        probabilities = (self.logits.double() / temperature).softmax(dim=1)
        return calibration_error(probabilities.numpy(), self.labels.numpy())
