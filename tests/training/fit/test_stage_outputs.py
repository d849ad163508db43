from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.small_config import compose_config
from vinegrape_training.data.augmentation.settings import Augmentation
from vinegrape_training.data.datamodule import OTHER
from vinegrape_training.fit import stage_outputs
from vinegrape_training.fit.stage_outputs import StageOutputs, StageOutputsModule, compute
from vinegrape_training.models.factory import create_model
from vinegrape_training.models.normalised import Normalised
from vinegrape_training.models.stages import freeze_stages, run_stages


def module(images: int, versions: int, outliers: int = 0) -> StageOutputsModule:
    """Outputs of one channel and pixel: 10 times the version plus the index; those of outliers are negative."""
    numbers = 10 * np.arange(versions)[:, None] + np.arange(images)
    others = -1 - 10 * np.arange(versions)[:, None] - np.arange(outliers)

    def stored(values: Any) -> Any:
        return torch.tensor(values).bfloat16().view(torch.int16).numpy()[..., None, None, None]

    outputs = StageOutputs(stored(numbers), stored(others) if outliers else None)
    return StageOutputsModule(outputs, range(images), range(images), 4, range(outliers), ["things"] * outliers, 2)


def batch(data: StageOutputsModule, epoch: int, indices: list[int]) -> tuple[list[float], list[int]]:
    data.trainer = SimpleNamespace(current_epoch=epoch)  # type: ignore[assignment]
    features, labels = data.on_before_batch_transfer((torch.tensor(indices), torch.tensor(indices)), 0)
    return features.flatten().tolist(), labels.tolist()


def test_each_epoch_takes_the_next_version_of_each_image() -> None:
    data = module(images=5, versions=2)
    assert batch(data, 0, [4, 1]) == ([4, 1], [4, 1])
    assert batch(data, 1, [4, 1]) == ([14, 11], [4, 1])
    assert batch(data, 2, [0]) == ([0], [0])


def test_outliers_follow_the_images() -> None:
    features, labels = batch(module(images=5, versions=2, outliers=3), 0, [3])
    assert (features[0], labels) == (3, [3, OTHER, OTHER])
    assert set(features[1:]) <= {-1, -2, -3, -11, -12, -13}


def test_batches_are_shuffled() -> None:
    torch.manual_seed(0)
    orders = [[index for batch in module(8, 1).train_dataloader() for index in batch[0].tolist()] for _ in range(2)]
    assert sorted(orders[0]) == list(range(8))
    assert orders[0] != orders[1]


@pytest.fixture
def network() -> Normalised:
    model = create_model("mobilenetv2_035", 3, "none").train()
    freeze_stages(model, 2)
    return Normalised(model, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def outputs(folder: Path, network: Normalised, key: str = "key", versions: int = 2) -> StageOutputs:
    unchanged = Augmentation(**{**compose_config("augmentation=light").augmentation, "flip": 0.5})
    pixels = np.full((3, 32, 32, 4), 255, np.uint8)
    pixels[:, 8:24, 8:16, :3] = np.array([0, 80, 160], np.uint8)[:, None, None, None]
    return compute(folder, {"key": key}, network, 2, pixels, pixels[:1], unchanged, versions)


def test_the_outputs_are_those_of_the_stages_for_augmented_images(tmp_path: Path, network: Normalised) -> None:
    images = outputs(tmp_path, network).images
    white = network.normalise(torch.full((1, 3, 32, 32), 255.0))
    expected = run_stages(network.network, 2, white)[0, :, 0, 0]  # the corner of each image is white
    corner = torch.from_numpy(np.array(images)).view(torch.bfloat16)[:, :, :, 0, 0].float()
    assert images.shape[:2] == (2, 3)
    torch.testing.assert_close(corner, expected.expand(2, 3, -1), rtol=0.05, atol=0.05)
    assert not np.array_equal(images[0], images[1])


def test_files_are_used_again_for_the_same_key_only(
    tmp_path: Path, network: Normalised, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = outputs(tmp_path, network)
    assert len(list(tmp_path.iterdir())) == 2
    other = outputs(tmp_path, network, "other")
    assert len(list(tmp_path.iterdir())) == 4
    assert not np.array_equal(first.images, other.images)
    monkeypatch.setattr(stage_outputs, "_write", lambda *arguments: pytest.fail("computed again"))
    assert np.array_equal(outputs(tmp_path, network).images, first.images)
