from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.small_config import compose_config
from vinegrape_handler.errors import SettingError
from vinegrape_training.data.augmentation import Augmentation, augment

LEVELS = ("light", "moderate", "heavy")
STILL = Augmentation(
    flip=0, rotation_degrees=0, translation=0, scale=(1, 1), shear_degrees=0, brightness=0, saturation=0, hue=0,
    blur=0, erasing=0,
)  # fmt: skip


def level(name: str, **changes: Any) -> Augmentation:
    return Augmentation(**{**compose_config(f"augmentation={name}").augmentation, **changes})


def only(**changes: Any) -> Augmentation:
    """Nothing but this."""
    return Augmentation(**{**STILL.__dict__, **changes})


def leaves(count: int = 8) -> Tensor:
    """Green squares on white: uint8 [count, 3, 48, 48]."""
    images = torch.full((count, 3, 48, 48), 255, dtype=torch.uint8)
    images[:, :, 16:32, 16:32] = torch.tensor([40, 160, 60], dtype=torch.uint8).view(3, 1, 1)
    return images


def plain(colour: tuple[int, int, int], count: int = 8) -> Tensor:
    """Images of one colour."""
    return torch.tensor(colour, dtype=torch.uint8).view(1, 3, 1, 1).expand(count, 3, 48, 48).clone()


@pytest.mark.parametrize("name", LEVELS)
def test_images_stay_images(name: str) -> None:
    torch.manual_seed(0)
    images = augment(leaves(64), level(name))
    assert (images.shape, images.dtype) == ((64, 3, 48, 48), torch.float32)
    assert images.min() > -0.01
    assert images.max() <= 255


@pytest.mark.parametrize("name", LEVELS)
def test_white_stays_white(name: str) -> None:
    torch.manual_seed(0)
    assert (augment(plain((255, 255, 255), 64), level(name)) == 255).all()
    assert (augment(leaves(64), level(name, translation=0))[:, :, :2, :2] == 255).all()


@pytest.mark.parametrize("name", LEVELS)
def test_each_image_changes_in_its_own_way_and_the_seed_decides_how(name: str) -> None:
    torch.manual_seed(3)
    first = augment(leaves(), level(name))
    torch.manual_seed(3)
    assert torch.equal(augment(leaves(), level(name)), first)
    assert not torch.equal(augment(leaves(), level(name)), first)
    assert len({image.numpy().tobytes() for image in first}) == 8


def test_nothing_asked_nothing_changed() -> None:
    images = torch.randint(0, 256, (4, 3, 48, 48), dtype=torch.uint8)
    torch.testing.assert_close(augment(images, STILL), images.float(), rtol=0, atol=0.02)


def test_both_flips_are_half_a_turn() -> None:
    images = torch.randint(0, 256, (4, 3, 48, 48), dtype=torch.uint8)
    torch.testing.assert_close(augment(images, only(flip=1)), images.flip(2, 3).float(), rtol=0, atol=0.02)


def test_a_turned_square_keeps_its_area_and_its_centre() -> None:
    torch.manual_seed(0)
    dark = 255 - augment(leaves(32), only(rotation_degrees=180))[:, 0]
    torch.testing.assert_close(dark.sum((1, 2)), torch.full((32,), 16.0 * 16 * (255 - 40)), rtol=0.02, atol=0)
    rows = (dark.sum(2) * torch.arange(48)).sum(1) / dark.sum((1, 2))
    torch.testing.assert_close(rows, torch.full((32,), 23.5), rtol=0, atol=0.2)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_scale_is_that_of_the_leaf(factor: float) -> None:
    dark = 255 - augment(leaves(), only(scale=(factor, factor)))[:, 0]
    torch.testing.assert_close(dark.sum((1, 2)), torch.full((8,), (16 * factor) ** 2 * (255 - 40)), rtol=0.02, atol=0)


def test_translation_stays_within_its_part_of_the_side() -> None:
    torch.manual_seed(0)
    dark = 255 - augment(leaves(256), only(translation=0.25))[:, 0]
    rows = (dark.sum(2) * torch.arange(48)).sum(1) / dark.sum((1, 2)) - 23.5
    assert 11 < rows.abs().max() <= 12.01


def test_what_comes_from_outside_is_white() -> None:
    torch.manual_seed(1)
    corners = augment(plain((0, 0, 0), 64), only(rotation_degrees=45))[:, :, 0, 0]
    assert (corners == 255).any()
    assert torch.equal(corners[:, 0], corners[:, 1])


def test_brightness_is_of_what_is_missing_to_white() -> None:
    torch.manual_seed(0)
    grey = augment(plain((155, 155, 155), 256), only(brightness=0.2))[:, :, 24, 24]
    # 100 are missing; 80 to 120 of them stay
    assert 135 <= grey.min() < 139
    assert 171 < grey.max() <= 175
    torch.testing.assert_close(grey[:, 0], grey[:, 2])


@pytest.mark.parametrize("change", [{"saturation": 0.5}, {"hue": 0.5}])
def test_colour_leaves_grey_grey_and_moves_green(change: dict[str, float]) -> None:
    torch.manual_seed(0)
    grey = augment(plain((90, 90, 90)), only(**change))
    torch.testing.assert_close(grey, torch.full_like(grey, 90), rtol=0, atol=0.5)
    green = augment(plain((40, 160, 60)), only(**change))[:, :, 24, 24]
    assert (green - torch.tensor([40.0, 160, 60])).abs().amax(1).min() > 1


def test_blur_moves_the_edges_and_keeps_the_sum() -> None:
    torch.manual_seed(0)
    images = augment(leaves(), only(blur=1))
    torch.testing.assert_close(images.sum((2, 3)), leaves().float().sum((2, 3)), rtol=1e-4, atol=0)
    assert (images[:, 1, 16, 24] > 160.1).all()
    assert (augment(leaves(64), only(blur=0.5))[:, 1, 16, 24] > 160.1).sum() in range(16, 48)


def test_erasing_turns_a_rectangle_white() -> None:
    torch.manual_seed(0)
    white = (augment(plain((10, 20, 30), 64), only(erasing=1)) == 255).all(1)
    part = white.float().mean((1, 2))
    assert part.min() > 0.01  # whole pixels of 2 %
    assert part.max() < 0.17
    for image in white:
        rows, columns = image.any(1), image.any(0)
        assert torch.equal(image, rows.unsqueeze(1) & columns)


def test_levels_rise() -> None:
    light, moderate, heavy = (level(name) for name in LEVELS)
    for name in ("translation", "shear_degrees", "brightness", "saturation", "hue", "blur"):
        assert getattr(light, name) <= getattr(moderate, name) <= getattr(heavy, name)
    assert heavy.erasing > 0


def test_settings_are_checked() -> None:
    with pytest.raises(SettingError, match=r"augmentation\.flip must lie in 0 to 1; it is 2"):
        level("light", flip=2)
    with pytest.raises(SettingError, match=r"augmentation\.hue must lie in 0 to 0\.5; it is 0\.6"):
        level("light", hue=0.6)
    with pytest.raises(SettingError, match=r"augmentation\.blur must be a number; it is 'much'"):
        level("light", blur="much")
    for scale in ((1.2, 0.8), (1.0,), ("a", "b"), 1.0, "no"):
        with pytest.raises(SettingError, match=r"augmentation\.scale must be \[smallest, largest\] above 0; it is"):
            level("light", scale=scale)
