"""Images that lie decoded in memory, as batches: training's are shuffled, and augmented on the device."""

from __future__ import annotations

import numpy as np
import torch
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from vinegrape_training.data.augmentation import Augmentation, augment
from vinegrape_training.data.dataset import Dataset, Split


class LeavesDataModule(LightningDataModule):
    """Batches of images, 0 to 255, [N, 3, S, S], and labels, int64 [N].

    Attributes:
        train, validation, test: uint8 images and labels, in the order of the split; any but training's may be empty.
    """

    def __init__(
        self, dataset: Dataset, images: NDArray[np.uint8], split: Split, augmentation: Augmentation, batch_size: int
    ) -> None:
        """Take the parts out of all images.

        Args:
            dataset: its labels, and the order of its paths.
            images: uint8 [len(dataset.paths), S, S, 3].
            split: which of them train, validate and test.
            augmentation: of the training images.
            batch_size: images a step; a last, smaller training batch is left out, for batch norm's sake.
        """
        super().__init__()
        self.augmentation = augmentation
        self.batch_size = batch_size

        def part(paths: tuple[str, ...]) -> TensorDataset:
            indices = dataset.indices_of(paths)
            pixels = torch.from_numpy(np.ascontiguousarray(images[indices].transpose(0, 3, 1, 2)))
            return TensorDataset(pixels, torch.tensor(dataset.labels)[indices])

        self.train, self.validation, self.test = (part(paths) for paths in (split.train, split.validation, split.test))

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Shuffled by torch's global generator."""
        return DataLoader(self.train, self.batch_size, shuffle=True, drop_last=len(self.train) > self.batch_size)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """In the order of the split."""
        return DataLoader(self.validation, self.batch_size)

    def on_after_batch_transfer(self, batch: tuple[Tensor, Tensor], dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Augment a training batch where it is: on a GPU, the processor has nothing to do."""
        images, labels = batch
        if self.trainer is not None and self.trainer.training:
            images = augment(images, self.augmentation)
        return images, labels
