"""Run folders that look like those of `vinegrape train`, made without training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from vinegrape_training.data.dataset import Dataset, Split, scan
from vinegrape_training.data.outliers import OutlierSplit, scan_outliers
from vinegrape_training.evaluation.predictions import Evaluation
from vinegrape_training.experiments.cross_validation import INT8_FILE, OUTLIERS_FILE
from vinegrape_training.fit.config import data_dir
from vinegrape_training.fit.run import TEST_FILE, Run

LEAF_SCORE = -5.0
OUTLIER_SCORES = {"far": 5.0, "near": -6.0}
"""The OOD scores by `FoldTraining`, of images of the classes and of outliers by kind."""


def write_run(folder: Path, dataset: Dataset, parts: Split, seed: int = 0) -> Run:
    """Write the `run.json` of a network that does not exist."""
    run = Run(
        folder=folder,
        architecture="small_cnn",
        classes=dataset.classes,
        input_size=32,
        interpolation="bilinear",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        temperature=1.0,
        has_ood_score=False,
        ood_threshold=None,
        data_dir=dataset.folder,
        data_digest=dataset.digest(),
        split=parts,
        metrics={},
        libraries={},
        git_commit=None,
        git_dirty=False,
        seed=seed,
    )
    run.write()
    return run


def logits_of(predictions: Tensor, classes: int) -> Tensor:
    """Return logits, float32 [N, classes], that predict these classes, int64 [N], each with the same confidence."""
    return 4.0 * torch.nn.functional.one_hot(predictions, classes).float()


class FoldTraining:
    """Stands in for `train` in a cross-validation: it writes the folder of a tested fold.

    Its predictions are correct, except for the images in `wrong` and `wrong_int8`, which are predicted as the class
    after their own.

    Args:
        wrong: seed to the paths of misclassified images.
        wrong_int8: the same for the int8 file; None writes no int8 file.
    """

    def __init__(
        self, wrong: Mapping[int, set[str]] | None = None, wrong_int8: Mapping[int, set[str]] | None = None
    ) -> None:
        self.wrong, self.wrong_int8 = wrong or {}, wrong_int8
        self.configs: list[DictConfig] = []

    def __call__(self, cfg: DictConfig, parts: Split, outlier_parts: OutlierSplit | None = None) -> Run:
        self.configs.append(cfg)
        folder, dataset = Path(cfg.run_dir), scan(data_dir(cfg))
        folder.mkdir(parents=True)
        self._predict(dataset, parts, self.wrong.get(cfg.seed, set())).write(folder / TEST_FILE)
        if self.wrong_int8 is not None:
            int8 = self._predict(dataset, parts, self.wrong_int8.get(cfg.seed, set()))
            if outlier_parts:
                scores = [OUTLIER_SCORES[kind] for kind in scan_outliers(Path(cfg.outliers.dir)).kinds]
                np.savez(folder / OUTLIERS_FILE, ood_scores=np.array(scores, np.float32))
                int8 = replace(int8, ood_scores=torch.full((len(parts.test),), LEAF_SCORE))
            int8.write(folder / INT8_FILE)
        return write_run(folder, dataset, parts, cfg.seed)

    @property
    def folders(self) -> list[str]:
        """The folders that were trained, such as "seed-1/fold-0"."""
        return ["/".join(Path(cfg.run_dir).parts[-2:]) for cfg in self.configs]

    @staticmethod
    def _predict(dataset: Dataset, parts: Split, wrong: set[str]) -> Evaluation:
        classes = len(dataset.classes)
        labels = torch.from_numpy(dataset.labels_of(parts.test))
        shift = torch.tensor([path in wrong for path in parts.test]).long()
        return Evaluation(logits_of((labels + shift) % classes, classes), labels)
