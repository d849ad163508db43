"""The predictions of cross-validation: each image classified by networks that were not trained on it."""

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
    """The answers that all images got from networks that were not trained on them, once for each seed.

    Attributes:
        seeds: of the deals into folds.
        paths: of the images, N of them.
        labels: int64 [N].
        folds: int64 [seeds, N], the fold in whose test an image was.
        logits: float32 [seeds, N, classes].
        int8: the same from the int8 files, log probabilities; None where they were not made for every fold.
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
        """Read what `write` wrote."""
        with np.load(path) as arrays:
            tensors = {name: torch.from_numpy(arrays[name]) for name in ("labels", "folds", "logits")}
            int8 = torch.from_numpy(arrays["int8"]) if "int8" in arrays else None
            return cls(tuple(arrays["seeds"].tolist()), tuple(arrays["paths"].tolist()), int8=int8, **tensors)

    def wrong(self, classes: Sequence[str]) -> dict[str, list[str]]:
        """What images were taken for that they are not: a path to classes, the images that were wrong most first."""
        answers = self.logits.argmax(dim=2)
        taken_for = {
            path: [classes[answer] for answer in answers[:, index] if answer != self.labels[index]]
            for index, path in enumerate(self.paths)
        }
        return {
            path: taken_for[path] for path in sorted(taken_for, key=lambda p: -len(taken_for[p])) if taken_for[path]
        }

    def probabilities(self, logits: Tensor) -> NDArray[np.float64]:
        """The probabilities of `logits` or of `int8`, with each fold's temperature fitted on its seed's other folds.

        Returns:
            float64 [seeds, N, classes].
        """
        result = torch.empty_like(logits, dtype=torch.float64)
        for number, folds in enumerate(self.folds):
            for fold in folds.unique():
                inside = folds == fold
                temperature = fit_temperature(self.logits[number, ~inside], self.labels[~inside])
                result[number, inside] = (logits[number, inside].double() / temperature).softmax(dim=1)
        return result.numpy()
