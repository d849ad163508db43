"""Batches of decoded images for Lightning. Training batches are shuffled, and augmented on the device."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence, Sized
from typing import Literal

import numpy as np
import torch
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from vinegrape_training.data.augmentation.augment import augment
from vinegrape_training.data.augmentation.settings import Augmentation
from vinegrape_training.data.dataset import Dataset, Split
from vinegrape_training.data.outliers import OutlierDraw

OTHER = -1
"""The label of an outlier in a training batch."""

_EVALUATION_BATCH_SIZE = 32


class OutlierSampler:
    """Draws the outliers of training batches.

    Args:
        images: uint8 [M, S, S, 4], RGB and opacity.
        kinds: the kind of each image.
        per_batch: number of outliers per batch.
    """

    def __init__(self, images: NDArray[np.uint8], kinds: Sequence[str], per_batch: int) -> None:
        self._images = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        self._draw = OutlierDraw(kinds, per_batch)

    def draw(self) -> Tensor:
        """Draw the outliers of one batch, with replacement: uint8 [per_batch, 4, S, S]."""
        return self._images[self._draw.indices()]


class AugmentedDataModule(LightningDataModule):
    """Batches of images [N, 3, S, S], 0 to 255, and labels, int64 [N]. Training batches are augmented.

    Attributes:
        validation, test: the images of these parts, which may be none.

    Args:
        augmentation: of the training images.
        batch_size: images of the data set per step.
        outliers: are added to each training batch, with the label `OTHER`. None: no outliers.
    """

    validation: Sized
    test: Sized

    def __init__(self, augmentation: Augmentation, batch_size: int, outliers: OutlierSampler | None) -> None:
        super().__init__()
        self.augmentation = augmentation
        self.batch_size = batch_size
        self._outliers = outliers

    @abstractmethod
    def evaluation_batches(self, part: Literal["validation", "test"]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Return all images of a part, for this process alone.

        Returns:
            Batches of images, uint8 [N, 3, S, S], labels, int64 [N], and places in the split, int64 [N].
        """

    def on_after_batch_transfer(self, batch: tuple[Tensor, Tensor], dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Add outliers to a training batch, and augment it on its device: with a GPU, the CPU does not augment."""
        images, labels = batch
        if self.trainer is None or not self.trainer.training:
            return images, labels
        if self._outliers is not None:
            outliers = self._outliers.draw().to(images.device)
            images = torch.cat([images, outliers])
            labels = torch.cat([labels, labels.new_full((len(outliers),), OTHER)])
        return augment(images, self.augmentation), labels


class LeavesDataModule(AugmentedDataModule):
    """Batches of the images of a folder, which are in memory.

    Attributes:
        train: uint8 [N, 4, S, S], RGB and opacity, and labels, in the order of the split.
        validation, test: uint8 [N, 3, S, S] and labels in the order of the split; may be empty.
    """

    def __init__(
        self,
        dataset: Dataset,
        images: NDArray[np.uint8],
        opacity: NDArray[np.uint8],
        split: Split,
        augmentation: Augmentation,
        batch_size: int,
        outliers: OutlierSampler | None = None,
    ) -> None:
        """Divide decoded images into training, validation and test images.

        Args:
            dataset: gives the labels and the order of `images`.
            images: uint8 [len(dataset.paths), S, S, 3].
            opacity: uint8 [len(dataset.paths), S, S], see `opacity.read_opacity`.
            split: paths of the training, validation and test images.
            augmentation: of the training images.
            batch_size: images of the data set per step. A last, smaller training batch is dropped, because batch norm
                needs statistics of enough images.
            outliers: are added to each training batch, with the label `OTHER`. None: no outliers.
        """
        super().__init__(augmentation, batch_size, outliers)

        def part(paths: tuple[str, ...], *, with_opacity: bool = False) -> TensorDataset:
            indices = dataset.indices_of(paths)
            pixels = images[indices]
            if with_opacity:
                pixels = np.concatenate([pixels, opacity[indices][..., np.newaxis]], axis=3)
            channels_first = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
            return TensorDataset(channels_first, torch.tensor(dataset.labels)[indices])

        self.train = part(split.train, with_opacity=True)
        self.validation: TensorDataset = part(split.validation)
        self.test: TensorDataset = part(split.test)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return training batches, shuffled by torch's global generator."""
        return DataLoader(self.train, self.batch_size, shuffle=True, drop_last=len(self.train) > self.batch_size)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return validation batches in the order of the split."""
        return DataLoader(self.validation, self.batch_size)

    def evaluation_batches(self, part: Literal["validation", "test"]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Return all images of a part, in the order of the split."""
        pixels, labels = (self.validation if part == "validation" else self.test).tensors
        places = torch.arange(len(labels))
        size = _EVALUATION_BATCH_SIZE
        return zip(torch.split(pixels, size), torch.split(labels, size), torch.split(places, size), strict=True)
