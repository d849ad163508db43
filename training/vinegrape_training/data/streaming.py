"""Batches of images from shards, for data that does not fit into memory. Everything else is as for images in memory."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from vinegrape_handler.metadata import Interpolation
from vinegrape_training.checks import check_number
from vinegrape_training.data.augmentation.settings import Augmentation
from vinegrape_training.data.datamodule import AugmentedDataModule, OutlierSampler
from vinegrape_training.data.dataset import Split, read_image
from vinegrape_training.data.opacity import opacity_of
from vinegrape_training.data.shards import ShardedDataset
from vinegrape_training.data.transparency import rgba_of

Batch = tuple[Tensor, Tensor, Tensor]
"""Images, uint8 [N, C, S, S], labels, int64 [N], and indices in `ShardedDataset.paths`, int64 [N]."""

T = TypeVar("T")


@dataclass(frozen=True)
class StreamSettings:
    """How shards are read.

    Attributes:
        workers: processes that read and decode images, for each process that trains; 0 reads in that process.
        shuffle_buffer: number of image files that each of them holds in memory, to draw the next one from.
    """

    workers: int
    shuffle_buffer: int

    def __post_init__(self) -> None:
        check_number("data.workers", self.workers, int, 0, 1024)
        check_number("data.shuffle_buffer", self.shuffle_buffer, int, 1, 1_000_000)


@dataclass(frozen=True)
class ImageReader:
    """Reads an image from its file's bytes, as training from memory does.

    Attributes:
        side: width and height of the result, in pixels.
        interpolation: "bilinear" or "bicubic".
        with_opacity: whether the image gets a fourth channel, see `opacity_of`.
    """

    side: int
    interpolation: Interpolation
    with_opacity: bool

    def __call__(self, data: bytes, name: str) -> Tensor:
        """Return the image, uint8 [3, S, S], or [4, S, S] with opacity."""
        pixels = read_image(data, name, self.side, self.interpolation)
        if self.with_opacity:
            opacity = opacity_of(rgba_of(data, name), pixels, self.interpolation)
            pixels = np.concatenate([pixels, opacity[..., np.newaxis]], axis=2)
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


class ShardBatches(IterableDataset[Batch]):
    """Batches of some images. Each worker of the data loader reads another part of them, in whole batches.

    Args:
        dataset: the shards.
        images: indices in `dataset.paths`, in the order in which the shards are read.
        batch_size: images per batch.
        reader: reads one image.
        drop_last: whether a last, smaller batch is left out, unless it is the only one.
        shuffle: size of the buffer and seed; None keeps the order.
    """

    def __init__(
        self,
        dataset: ShardedDataset,
        images: Sequence[int],
        batch_size: int,
        reader: ImageReader,
        *,
        drop_last: bool = False,
        shuffle: tuple[int, str] | None = None,
    ) -> None:
        self._dataset, self._images, self._batch_size, self._reader = dataset, images, batch_size, reader
        self._shuffle = shuffle
        whole, rest = divmod(len(images), batch_size)
        self._batches = whole + bool(rest and not (drop_last and whole))
        self._shard_of = {index: number for number, shard in enumerate(dataset.shards) for index in shard}

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker else (0, 1)
        start, end = (self._batches * part // count * self._batch_size for part in (number, number + 1))
        images = self._images[start:end]
        if not images:
            return
        shards = dict.fromkeys(self._shard_of[index] for index in images)
        files: Iterator[tuple[int, bytes]] = self._dataset.read(shards, set(images))
        if self._shuffle:
            import webdataset

            size, seed = self._shuffle
            generator = random.Random(f"{seed} {start}")  # noqa: S311 - shuffles images
            files = webdataset.shuffle(size, initial=size, rng=generator)(files)
        for batch in _batched(files, self._batch_size):
            yield self._read(batch)

    def _read(self, files: Sequence[tuple[int, bytes]]) -> Batch:
        paths, labels = self._dataset.paths, self._dataset.labels
        images = torch.stack([self._reader(data, f"{self._dataset.location}: {paths[index]}") for index, data in files])
        indices = [index for index, _ in files]
        return images, torch.tensor([labels[index] for index in indices]), torch.tensor(indices)


class ShardsDataModule(AugmentedDataModule):
    """Batches of images from shards.

    In each epoch, the processes of a distributed training and their workers divide the training images: no image is
    read twice. An equal number of images for each process and whole batches need some images to be left out, fewer than
    one batch of all processes together, and other ones in each epoch.

    Attributes:
        validation, test: paths of the images.
    """

    def __init__(
        self,
        dataset: ShardedDataset,
        split: Split,
        reader: tuple[int, Interpolation],
        augmentation: Augmentation,
        batch_size: int,
        settings: StreamSettings,
        seed: int,
        outliers: OutlierSampler | None = None,
    ) -> None:
        """Prepare the loading. No image is read yet.

        Args:
            dataset: the shards.
            split: paths of the training, validation and test images.
            reader: side in pixels and interpolation of the images.
            augmentation: of the training images.
            batch_size: see `LeavesDataModule`.
            settings: of the reading.
            seed: of the order of the training images, which also depends on the epoch.
            outliers: see `LeavesDataModule`.
        """
        super().__init__(augmentation, batch_size, outliers)
        self.validation: tuple[str, ...] = split.validation
        self.test: tuple[str, ...] = split.test
        self._dataset, self._train, self._reader = dataset, split.train, reader
        self._settings, self._seed = settings, seed

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the training batches of this process in this epoch."""
        epoch, rank, ranks = self._position()
        images = self._order(self._train, np.random.default_rng([self._seed, epoch]))
        count = len(images) // ranks
        batches = ShardBatches(
            self._dataset,
            images[rank * count : (rank + 1) * count],
            self.batch_size,
            ImageReader(*self._reader, with_opacity=True),
            drop_last=True,
            shuffle=(self._settings.shuffle_buffer, f"{self._seed} {epoch} {rank}"),
        )
        return self._loader(batches)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the validation batches of this process: as many as the others have, so that none waits.

        As in torch's `DistributedSampler`, some images are read twice if their number requires it.
        """
        _, rank, ranks = self._position()
        images = self._order(self.validation)
        count = -(-len(images) // ranks)
        mine = list(itertools.islice(itertools.cycle(images), rank * count, (rank + 1) * count))
        reader = ImageReader(*self._reader, with_opacity=False)
        return self._loader(ShardBatches(self._dataset, mine, self.batch_size, reader))

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Remove the indices, which training does not use."""
        return batch[:2]

    def evaluation_batches(self, part: Literal["validation", "test"]) -> Iterator[Batch]:
        """Return all images of a part, in the order of the shards."""
        paths = self.validation if part == "validation" else self.test
        images = self._dataset.indices_of(paths)
        place = torch.zeros(len(self._dataset.paths), dtype=torch.int64)
        place[images] = torch.arange(len(images))
        reader = ImageReader(*self._reader, with_opacity=False)
        loader = self._loader(ShardBatches(self._dataset, self._order(paths), self.batch_size, reader))
        for pixels, labels, indices in loader:
            yield pixels, labels, place[indices]

    def _position(self) -> tuple[int, int, int]:
        """Return the epoch, the number of this process and the number of processes."""
        if self.trainer is None:
            return 0, 0, 1
        return self.trainer.current_epoch, self.trainer.global_rank, self.trainer.world_size

    def _order(self, paths: Sequence[str], generator: np.random.Generator | None = None) -> list[int]:
        """Return the indices of images in the order of the shards, which a generator shuffles."""
        chosen = set(self._dataset.indices_of(paths))
        shards = list(self._dataset.shards)
        if generator is not None:
            shards = [shards[number] for number in generator.permutation(len(shards))]
        return [index for shard in shards for index in shard if index in chosen]

    def _loader(self, batches: ShardBatches) -> DataLoader[Batch]:
        return DataLoader(batches, batch_size=None, num_workers=min(self._settings.workers, len(batches)))


def _batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
