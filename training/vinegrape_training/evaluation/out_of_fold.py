"""The predictions of cross-validation: each image is classified by networks that were not trained on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vinegrape_training.evaluation.calibration import fit_temperature

OUT_OF_FOLD_FILE = "out_of_fold.npz"


@dataclass(frozen=True)
class OutOfFold:
    """One prediction per image and seed, from the network of the fold that tested the image.

    Attributes:
        seeds: of the splits into folds.
        paths: of the N images.
        labels: int64 [N].
        folds: int64 [seeds, N], the fold that tested each image.
        logits: float32 [seeds, N, classes].
        int8: float32 [seeds, N, classes], log probabilities of the int8 files; None if a fold has no int8 file.
    """

    seeds: tuple[int, ...]
    paths: tuple[str, ...]
    labels: Tensor
    folds: Tensor
    logits: Tensor
    int8: Tensor | None

    def write(self, path: Path) -> None:
        """Write an npz file."""
        arrays: dict[str, Any] = {name: getattr(self, name).numpy() for name in ("labels", "folds", "logits")}
        if self.int8 is not None:
            arrays["int8"] = self.int8.numpy()
        np.savez_compressed(path, seeds=np.array(self.seeds), paths=np.array(self.paths), **arrays)

    @classmethod
    def read(cls, path: Path) -> OutOfFold:
        """Read a file that `write` wrote."""
        with np.load(path) as arrays:
            tensors = {name: torch.from_numpy(arrays[name]) for name in ("labels", "folds", "logits")}
            int8 = torch.from_numpy(arrays["int8"]) if "int8" in arrays else None
            return cls(tuple(arrays["seeds"].tolist()), tuple(arrays["paths"].tolist()), int8=int8, **tensors)

    def misclassified(self, classes: Sequence[str]) -> dict[str, list[str]]:
        """List the misclassified images.

        Returns:
            Image path to the wrongly predicted classes, one per seed in which the prediction was wrong. Images with
            the most wrong predictions come first.
        """
        predictions = self.logits.argmax(dim=2)
        wrong = {
            path: [classes[prediction] for prediction in predictions[:, index] if prediction != self.labels[index]]
            for index, path in enumerate(self.paths)
        }
        return {path: wrong[path] for path in sorted(wrong, key=lambda path: -len(wrong[path])) if wrong[path]}

    def probabilities(self, logits: Tensor) -> NDArray[np.float64]:
        """Compute probabilities; the temperature of each fold is fitted on the other folds of its seed.

        Args:
            logits: float [seeds, N, classes], `self.logits` or `self.int8`.

        Returns:
            float64 [seeds, N, classes].
        """
        result = torch.empty_like(logits, dtype=torch.float64)
        for row, folds in enumerate(self.folds):
            for fold in folds.unique():
                inside = folds == fold
                temperature = fit_temperature(self.logits[row, ~inside], self.labels[~inside])
                result[row, inside] = (logits[row, inside].double() / temperature).softmax(dim=1)
        return result.numpy()
