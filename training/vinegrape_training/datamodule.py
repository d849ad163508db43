"""The images of a split, decoded once and kept in memory, as batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from vinegrape_handler.resize import Interpolation

from vinegrape_training import augmentation
from vinegrape_training.augmentation import Augmentation
from vinegrape_training.dataset import Dataset, Split, load_images


class Leaves(TorchDataset[tuple[Tensor, int]]):
    """Images in memory, uint8 [N, S, S, 3], as items: uint8 [3, S, S] and a label."""

    def __init__(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64], transform: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2)
        self.labels = labels
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.images[index]
        if self.transform is not None:
            image = self.transform(image)
        return image, int(self.labels[index])


class LeavesDataModule(LightningDataModule):
    """Batches of uint8 [N, 3, S, S] and int64 [N]: training augmented and shuffled, validation as it is.

    Args:
        dataset: where the images are.
        split: which of them train, validate and test.
        side: pixels a side.
        interpolation: how they are resized.
        augmentation: of the training images.
        batch_size: images a step; a last, smaller training batch is left out, for batch norm's sake.
        workers: processes that augment; 0 augments in this one.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: Split,
        side: int,
        interpolation: Interpolation,
        augmentation: Augmentation,
        batch_size: int,
        workers: int,
    ) -> None:
        super().__init__()
        self.dataset = dataset
        self.split = split
        self.side = side
        self.interpolation = interpolation
        self.augmentation = augmentation
        self.batch_size = batch_size
        self.workers = workers

    def setup(self, stage: str) -> None:
        """Decode the images of a stage: "fit" those of training and validation, "test" those of the test."""
        if stage == "fit":
            self.train = self._leaves(self.split.train, "Decoding training", augmentation.build(self.augmentation))
            self.validation = self._leaves(self.split.validation, "Decoding validation")
        if stage == "test":
            self.test = self._leaves(self.split.test, "Decoding test")

    def _leaves(
        self, paths: Sequence[str], description: str, transform: Callable[[Tensor], Tensor] | None = None
    ) -> Leaves:
        images = load_images(self.dataset.folder, paths, self.side, self.interpolation, description)
        return Leaves(images, self.dataset.labels_of(paths), transform)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """Shuffled by torch's global generator."""
        drop_last = len(self.train) > self.batch_size
        return DataLoader(
            self.train,
            self.batch_size,
            shuffle=True,
            drop_last=drop_last,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
        )

    def val_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """In the order of the split, in this process: there is nothing to compute."""
        return DataLoader(self.validation, self.batch_size)
