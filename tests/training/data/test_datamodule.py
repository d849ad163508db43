from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.support.small_config import compose_config
from vinegrape_training.data.augmentation.settings import Augmentation
from vinegrape_training.data.datamodule import OTHER, LeavesDataModule, OutlierSampler
from vinegrape_training.data.dataset import Split, load_dataset, scan
from vinegrape_training.data.opacity import load_opacity


@pytest.fixture
def data(colours: Path) -> LeavesDataModule:
    """13 training, 4 validation and 3 test images; batches of 5."""
    dataset = scan(colours)
    parts = Split(dataset.paths[:13], dataset.paths[13:17], dataset.paths[17:])
    images = load_dataset(dataset, 32, "bilinear")
    opacity = load_opacity(dataset, 32, "bilinear")
    return LeavesDataModule(dataset, images, opacity, parts, Augmentation(**compose_config().augmentation), 5)


def test_parts_are_in_the_order_of_the_split(data: LeavesDataModule) -> None:
    pixels, labels = data.train.tensors
    assert (pixels.shape, pixels.dtype) == ((13, 4, 32, 32), torch.uint8)
    assert (pixels[:, 3] == 255).all()
    assert pixels[:10, 2, 0, 0].tolist() == [255 - index for index in range(10)]
    assert labels.tolist() == [0] * 10 + [1] * 3
    assert data.test.tensors[1].tolist() == [1, 1, 1]


def test_training_batches_are_shuffled_and_a_smaller_last_one_is_dropped(data: LeavesDataModule) -> None:
    torch.manual_seed(0)
    first, again = ([batch[0][:, :, 0, 0].tolist() for batch in data.train_dataloader()] for _ in range(2))
    assert [len(batch) for batch in first] == [5, 5]
    assert first != again


def test_the_only_batch_is_kept_even_if_it_is_smaller(data: LeavesDataModule) -> None:
    data.batch_size = 16
    assert [len(labels) for _, labels in data.train_dataloader()] == [13]


def test_validation_holds_all_images_in_order(data: LeavesDataModule) -> None:
    ((pixels, labels),) = data.val_dataloader()
    assert torch.equal(pixels, data.validation.tensors[0])
    assert labels.tolist() == [1] * 4


@pytest.mark.parametrize("training", [True, False])
def test_only_training_batches_are_augmented(data: LeavesDataModule, training: bool) -> None:
    data.trainer = SimpleNamespace(training=training)  # type: ignore[assignment]
    batch = (data.train.tensors[0][:5], data.train.tensors[1][:5])
    images, labels = data.on_after_batch_transfer(batch, 0)
    assert torch.equal(images[:, :3].float(), batch[0][:, :3].float()) is not training
    assert images.shape == (5, 3 if training else 4, 32, 32)
    assert torch.equal(labels, batch[1])


def test_outliers_follow_the_images_of_a_training_batch(data: LeavesDataModule) -> None:
    black = np.zeros((3, 32, 32, 4), np.uint8)
    black[..., 3] = 255
    data._outliers = OutlierSampler(black, ["things"] * 3, per_batch=2)
    data.augmentation = replace(data.augmentation, disturbed=0, brightness=0, scale=(2, 2), translation=0)
    data.trainer = SimpleNamespace(training=True)  # type: ignore[assignment]
    images, labels = data.on_after_batch_transfer((data.train.tensors[0][:5], data.train.tensors[1][:5]), 0)
    assert labels.tolist() == [0, 0, 0, 0, 0, OTHER, OTHER]
    assert (images[5:, :, 12:20, 12:20] < 1).all()
    assert (images[:5, :, 12:20, 12:20].amax(1) > 100).all()
