"""Batches of decoded images for Lightning. Training batches are shuffled, and augmented on the device."""

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
    """Batches of images [N, 3, S, S], 0 to 255, and labels, int64 [N].

    Attributes:
        train, validation, test: uint8 images and labels in the order of the split; validation and test may be empty.
    """

    def __init__(
        self, dataset: Dataset, images: NDArray[np.uint8], split: Split, augmentation: Augmentation, batch_size: int
    ) -> None:
        """Divide decoded images into training, validation and test images.

        Args:
            dataset: gives the labels and the order of `images`.
            images: uint8 [len(dataset.paths), S, S, 3].
            split: paths of the training, validation and test images.
            augmentation: of the training images.
            batch_size: images per step. A last, smaller training batch is dropped, because batch norm needs
                statistics of enough images.
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
        """Return training batches, shuffled by torch's global generator."""
        return DataLoader(self.train, self.batch_size, shuffle=True, drop_last=len(self.train) > self.batch_size)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return validation batches in the order of the split."""
        return DataLoader(self.validation, self.batch_size)

    def on_after_batch_transfer(self, batch: tuple[Tensor, Tensor], dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Augment a training batch on its device, so that with a GPU the CPU does not augment."""
        images, labels = batch
        if self.trainer is not None and self.trainer.training:
            images = augment(images, self.augmentation)
        return images, labels
