"""The outputs of a network's frozen stages for augmented images, computed once for several trainings.

An evaluation trains one network per fold and seed. Their frozen stages all have the pretrained weights, so they compute
the same from the same augmented image. Augmentation and the first stages take more than half of the time of a training
step on a CPU; an evaluation of ten networks does this work once instead of ten times. Each image is augmented once per
epoch, as in any training, but the networks of an evaluation share these images.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from vinegrape_training.data.augmentation.augment import augment
from vinegrape_training.data.augmentation.settings import Augmentation
from vinegrape_training.data.datamodule import OTHER
from vinegrape_training.data.outliers import OutlierDraw
from vinegrape_training.models.normalised import Normalised
from vinegrape_training.models.stages import run_stages
from vinegrape_training.progress import progress

_BATCH_SIZE = 16
_OUTLIER_VERSIONS = 6  # an outlier is drawn a few times in a training, so it needs fewer versions than an image


@dataclass(frozen=True)
class StageOutputs:
    """The outputs of the frozen stages.

    Attributes:
        images: bfloat16 as int16 [versions, N, D, h, w], of the images of the data set; each version is augmented with
            other random numbers.
        outliers: the same of M outliers, with fewer versions; None without outliers.
    """

    images: NDArray[np.int16]
    outliers: NDArray[np.int16] | None


def compute(
    folder: Path,
    key: dict[str, Any],
    network: Normalised,
    stages: int,
    pixels: NDArray[np.uint8],
    outliers: NDArray[np.uint8] | None,
    augmentation: Augmentation,
    versions: int,
) -> StageOutputs:
    """Compute the outputs, or open those in the folder if they have the same key.

    The files need 2 bytes per number: 1.2 GB for 400 images, 60 epochs and five stages of MobileNetV2 at 320 px.

    Args:
        folder: for the files.
        key: everything that the outputs depend on, as JSON values.
        network: with its normalisation; its first stages are frozen.
        stages: number of the frozen stages.
        pixels: uint8 [N, S, S, 4], all images of the data set, RGB and opacity.
        outliers: uint8 [M, S, S, 4], all outliers.
        augmentation: strength of the changes.
        versions: number of epochs.
    """
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)

    def of(name: str, images: NDArray[np.uint8], count: int) -> NDArray[np.int16]:
        path = folder / f"{name}-{digest}.npy"
        if not path.is_file():
            with torch.random.fork_rng():
                torch.manual_seed(int(digest[:8], 16))
                _write(path, network, stages, images, augmentation, count)
        outputs: NDArray[np.int16] = np.load(path, mmap_mode="r")
        return outputs

    others = None if outliers is None else of("outliers", outliers, min(versions, _OUTLIER_VERSIONS))
    return StageOutputs(of("images", pixels, versions), others)


def _write(
    path: Path, network: Normalised, stages: int, images: NDArray[np.uint8], augmentation: Augmentation, versions: int
) -> None:
    """Compute the outputs for all versions of some images, and write them to a file."""
    starts = range(0, len(images), _BATCH_SIZE)
    file = None
    with tempfile.TemporaryDirectory(dir=path.parent) as temporary:
        partial = Path(temporary) / path.name
        steps = [(version, start) for version in range(versions) for start in starts]
        for version, start in progress(steps, f"Frozen stages, {path.name.partition('-')[0]}"):
            batch = torch.from_numpy(images[start : start + _BATCH_SIZE].transpose(0, 3, 1, 2).copy())
            outputs = _run(network, stages, augment(batch, augmentation))
            if file is None:
                shape = (versions, len(images), *outputs.shape[1:])
                file = np.lib.format.open_memmap(partial, "w+", np.int16, shape)
            file[version, start : start + len(outputs)] = outputs.view(torch.int16).numpy()
        if file is not None:
            file.flush()
        partial.rename(path)  # only complete files have the name


def _run(network: Normalised, stages: int, images: Tensor) -> Tensor:
    normalised = network.normalise(images.contiguous(memory_format=torch.channels_last))
    with torch.autocast("cpu", torch.bfloat16):
        outputs = run_stages(network.network, stages, normalised)
    return outputs.to(torch.bfloat16).contiguous()


class StageOutputsModule(LightningDataModule):
    """Training batches of stage outputs: float32 [N, D, h, w] and labels, int64 [N], `OTHER` for outliers at the end.

    Attributes:
        validation: no images.

    Args:
        outputs: of all images and outliers.
        indices: of the training images.
        labels: of the training images.
        batch_size: images of the data set per step; see `LeavesDataModule`.
        outliers: indices of the outliers to train with.
        kinds: of these outliers.
        per_batch: number of outliers per batch.
    """

    def __init__(
        self,
        outputs: StageOutputs,
        indices: Sequence[int],
        labels: Sequence[int],
        batch_size: int,
        outliers: Sequence[int],
        kinds: Sequence[str],
        per_batch: int,
    ) -> None:
        super().__init__()
        self.validation: tuple[()] = ()
        self._outputs = outputs
        self._train = TensorDataset(torch.tensor(indices), torch.tensor(labels))
        self._batch_size = batch_size
        self._outliers = torch.tensor(outliers)
        self._draw = OutlierDraw(kinds, per_batch)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return batches of indices and labels, shuffled by torch's global generator."""
        drop_last = len(self._train) > self._batch_size
        return DataLoader(self._train, self._batch_size, shuffle=True, drop_last=drop_last)

    def on_before_batch_transfer(self, batch: tuple[Tensor, Tensor], dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Replace indices by the outputs of this epoch's version, and add outliers."""
        indices, labels = batch
        assert self.trainer is not None  # noqa: S101 - Lightning sets it before it asks for batches
        version = self.trainer.current_epoch % len(self._outputs.images)
        parts = [self._outputs.images[version, indices.numpy()]]
        if self._outputs.outliers is not None:
            drawn = self._outliers[self._draw.indices()]
            versions = torch.randint(len(self._outputs.outliers), (len(drawn),))
            parts.append(self._outputs.outliers[versions.numpy(), drawn.numpy()])
            labels = torch.cat([labels, labels.new_full((len(drawn),), OTHER)])
        features = torch.from_numpy(np.concatenate(parts)).view(torch.bfloat16)
        return features.float().contiguous(memory_format=torch.channels_last), labels
