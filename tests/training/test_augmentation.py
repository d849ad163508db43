from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from vinegrape_handler.errors import SettingError
from vinegrape_training.augmentation import Augmentation, KeepWhite, build

from tests.training.small_config import compose_config

LEVELS = ("light", "moderate", "heavy")


def level(name: str, **changes: Any) -> Augmentation:
    return Augmentation(**{**compose_config(f"augmentation={name}").augmentation, **changes})


def leaf() -> Tensor:
    """A green square on white, 48 x 48."""
    image = torch.full((3, 48, 48), 255, dtype=torch.uint8)
    image[:, 16:32, 16:32] = torch.tensor([40, 160, 60], dtype=torch.uint8).view(3, 1, 1)
    return image


@pytest.mark.parametrize("name", LEVELS)
def test_images_stay_images(name: str) -> None:
    torch.manual_seed(0)
    transform = build(level(name))
    for _ in range(20):
        image = transform(leaf())
        assert image.shape == (3, 48, 48)
        assert image.dtype == torch.uint8


@pytest.mark.parametrize("name", LEVELS)
def test_white_stays_white(name: str) -> None:
    torch.manual_seed(0)
    transform = build(level(name))
    for _ in range(20):
        assert (transform(torch.full((3, 48, 48), 255, dtype=torch.uint8)) == 255).all()
        assert (transform(leaf())[:, :2, :2] == 255).all()


@pytest.mark.parametrize("name", LEVELS)
def test_images_change_and_the_seed_decides_how(name: str) -> None:
    transform = build(level(name))
    torch.manual_seed(3)
    first, second = transform(leaf()), transform(leaf())
    torch.manual_seed(3)
    assert torch.equal(transform(leaf()), first)
    assert not torch.equal(first, second)


def test_levels_rise() -> None:
    light, moderate, heavy = (level(name) for name in LEVELS)
    for name in ("translation", "shear_degrees", "brightness", "contrast", "saturation", "hue", "blur"):
        assert getattr(light, name) <= getattr(moderate, name) <= getattr(heavy, name)
    assert heavy.erasing > 0


def test_moved_image_is_filled_with_white() -> None:
    still = {"flip": 0, "rotation_degrees": 45, "scale": (1, 1), "blur": 0, "erasing": 0, "translation": 0}
    black = torch.zeros((3, 48, 48), dtype=torch.uint8)
    torch.manual_seed(1)
    corner = build(level("light", **still, brightness=0, contrast=0))(black)[:, 0, 0]
    assert corner.tolist() == [255, 255, 255]


def test_colour_changes_the_leaf_alone() -> None:
    class Darken(torch.nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image // 2

    image = KeepWhite(Darken())(leaf())
    assert image[:, 20, 20].tolist() == [20, 80, 30]
    assert image[:, 0, 0].tolist() == [255, 255, 255]


def test_settings_are_checked() -> None:
    with pytest.raises(SettingError, match=r"augmentation\.flip must lie in 0 to 1; it is 2"):
        level("light", flip=2)
    with pytest.raises(SettingError, match=r"augmentation\.scale"):
        level("light", scale=(1.2, 0.8))
