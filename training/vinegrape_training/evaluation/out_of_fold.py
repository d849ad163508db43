"""The predictions of cross-validation: each image is classified by networks that were not trained on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vinegrape_training.evaluation.abstention import choose_threshold
from vinegrape_training.evaluation.calibration import fit_temperature

OUT_OF_FOLD_FILE = "out_of_fold.npz"

_TENSORS = ("labels", "folds", "logits", "int8", "ood_scores")


@dataclass(frozen=True)
class OutlierScores:
    """The OOD scores of outliers, from networks that have not seen them.

    Attributes:
        paths: of the M outliers.
        kinds: kind of each outlier.
        folds: int64 [seeds, M], the fold of each score in `new_source`.
        new_source: float32 [seeds, M], from the fold that has seen neither the outlier's source nor its species.
        new_species: float32 [seeds, M], from a fold that has not seen its species, but may have seen its source.
    """

    paths: tuple[str, ...]
    kinds: tuple[str, ...]
    folds: NDArray[np.int64]
    new_source: NDArray[np.float32]
    new_species: NDArray[np.float32]

    def of_kind(self, kind: str) -> NDArray[np.bool_]:
        """Return which outliers are of a kind: bool [M]."""
        return np.array([own == kind for own in self.kinds])

    def by_kind(self, scores: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Return scores by kind.

        Args:
            scores: float [M] or [seeds, M]; those that are NaN are left out, and kinds without any.
        """
        found = {kind: scores[..., self.of_kind(kind)].ravel() for kind in sorted(set(self.kinds))}
        present = {kind: values[~np.isnan(values)] for kind, values in found.items()}
        return {kind: values for kind, values in present.items() if len(values)}


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
        ood_scores: float32 [seeds, N], OOD scores of the int8 files; None if the networks compute none.
        outliers: OOD scores of outliers; None without outliers.
    """

    seeds: tuple[int, ...]
    paths: tuple[str, ...]
    labels: Tensor
    folds: Tensor
    logits: Tensor
    int8: Tensor | None
    ood_scores: Tensor | None = None
    outliers: OutlierScores | None = None

    def write(self, path: Path) -> None:
        """Write an npz file."""
        tensors = {name: getattr(self, name) for name in _TENSORS}
        arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors.items() if tensor is not None}
        if self.outliers is not None:
            arrays |= {f"outliers_{name}": np.array(value) for name, value in vars(self.outliers).items()}
        np.savez_compressed(path, seeds=np.array(self.seeds), paths=np.array(self.paths), **arrays)

    @classmethod
    def read(cls, path: Path) -> OutOfFold:
        """Read a file that `write` wrote."""
        with np.load(path) as file:
            arrays = dict(file)
        tensors: dict[str, Any] = {
            name: torch.from_numpy(arrays[name]) if name in arrays else None for name in _TENSORS
        }
        outliers = None
        if "outliers_paths" in arrays:
            paths, kinds, *scores = (arrays[f"outliers_{field.name}"] for field in dataclasses.fields(OutlierScores))
            outliers = OutlierScores(tuple(paths.tolist()), tuple(kinds.tolist()), *scores)
        return cls(tuple(arrays["seeds"].tolist()), tuple(arrays["paths"].tolist()), **tensors, outliers=outliers)

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

    def thresholds(self) -> NDArray[np.float64]:
        """Choose the OOD threshold of each image on the images and outliers of the other folds: float64 [seeds, N].

        So no image has a part in its own threshold. See `abstention.choose_threshold`.
        """
        return self._thresholds(self.folds.numpy())

    def outlier_thresholds(self) -> NDArray[np.float64]:
        """Choose the threshold of each outlier in the same way: float64 [seeds, M]."""
        if self.outliers is None:
            raise ValueError("There are no outliers.")
        return self._thresholds(self.outliers.folds)

    def _thresholds(self, folds: NDArray[np.int64]) -> NDArray[np.float64]:
        if self.ood_scores is None or self.outliers is None:
            raise ValueError("The networks compute no OOD score, or there are no outliers.")
        result = np.empty(folds.shape)
        for row in range(len(self.seeds)):
            for fold in range(int(self.folds.max()) + 1):
                others = self.outliers.folds[row] != fold
                threshold = choose_threshold(
                    self.ood_scores[row].numpy()[self.folds[row].numpy() != fold],
                    self.outliers.by_kind(np.where(others, self.outliers.new_source[row], np.nan)),
                )
                result[row, folds[row] == fold] = threshold
        return result
