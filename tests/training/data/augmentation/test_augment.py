from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.small_config import compose_config
from vinegrape_handler.errors import SettingError
from vinegrape_training.data.augmentation.augment import augment as augment_with_opacity
from vinegrape_training.data.augmentation.settings import Augmentation

LEVELS = ("light", "moderate", "heavy")
UNCHANGED = Augmentation(
    flip=0, rotation_degrees=0, translation=0, scale=(1, 1), shear_degrees=0, brightness=0, saturation=0, hue=0,
    erasing=0, disturbed=0, disturbed_scale=(1, 1), background=0, shadow=0, light=0, blur=0, blur_sigma=(1, 1),
    low_resolution=0, noise=0, jpeg=0,
)  # fmt: skip


def level(name: str, **changes: Any) -> Augmentation:
    return Augmentation(**{**compose_config(f"augmentation={name}").augmentation, **changes})


def only(**changes: Any) -> Augmentation:
    """An augmentation with only these changes."""
    return Augmentation(**{**UNCHANGED.__dict__, **changes})


def augment(images: Tensor, augmentation: Augmentation) -> Tensor:
    """Augment uint8 [N, 3, S, S]; what is not white is opaque."""
    opacity = (images < 255).any(dim=1, keepdim=True).to(torch.uint8) * 255
    return augment_with_opacity(torch.cat([images, opacity], dim=1), augmentation)


def leaves(count: int = 8) -> Tensor:
    """Green squares on white: uint8 [count, 3, 48, 48]."""
    images = torch.full((count, 3, 48, 48), 255, dtype=torch.uint8)
    images[:, :, 16:32, 16:32] = torch.tensor([40, 160, 60], dtype=torch.uint8).view(3, 1, 1)
    return images


def plain(colour: tuple[int, int, int], count: int = 8) -> Tensor:
    """Images of one colour."""
    return torch.tensor(colour, dtype=torch.uint8).view(1, 3, 1, 1).expand(count, 3, 48, 48).clone()


@pytest.mark.parametrize("name", LEVELS)
def test_results_have_the_shape_and_range_of_images(name: str) -> None:
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
def test_images_change_differently_and_reproducibly_with_a_seed(name: str) -> None:
    torch.manual_seed(3)
    first = augment(leaves(), level(name))
    torch.manual_seed(3)
    assert torch.equal(augment(leaves(), level(name)), first)
    assert not torch.equal(augment(leaves(), level(name)), first)
    assert len({image.numpy().tobytes() for image in first}) == 8


def test_an_augmentation_of_zeros_changes_nothing() -> None:
    images = torch.randint(0, 256, (4, 3, 48, 48), dtype=torch.uint8)
    torch.testing.assert_close(augment(images, UNCHANGED), images.float(), rtol=0, atol=0.02)


def test_both_flips_together_rotate_by_180_degrees() -> None:
    images = torch.randint(0, 256, (4, 3, 48, 48), dtype=torch.uint8)
    torch.testing.assert_close(augment(images, only(flip=1)), images.flip(2, 3).float(), rtol=0, atol=0.02)


def test_rotation_keeps_the_area_and_the_centre() -> None:
    torch.manual_seed(0)
    dark = 255 - augment(leaves(32), only(rotation_degrees=180))[:, 0]
    torch.testing.assert_close(dark.sum((1, 2)), torch.full((32,), 16.0 * 16 * (255 - 40)), rtol=0.02, atol=0)
    rows = (dark.sum(2) * torch.arange(48)).sum(1) / dark.sum((1, 2))
    torch.testing.assert_close(rows, torch.full((32,), 23.5), rtol=0, atol=0.2)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_scale_is_the_factor_of_the_leafs_side(factor: float) -> None:
    dark = 255 - augment(leaves(), only(scale=(factor, factor)))[:, 0]
    torch.testing.assert_close(dark.sum((1, 2)), torch.full((8,), (16 * factor) ** 2 * (255 - 40)), rtol=0.02, atol=0)


def test_translation_is_at_most_its_fraction_of_the_side() -> None:
    torch.manual_seed(0)
    dark = 255 - augment(leaves(256), only(translation=0.25))[:, 0]
    rows = (dark.sum(2) * torch.arange(48)).sum(1) / dark.sum((1, 2)) - 23.5
    assert 11 < rows.abs().max() <= 12.01


def test_pixels_from_outside_the_image_are_white() -> None:
    torch.manual_seed(1)
    corners = augment(plain((0, 0, 0), 64), only(rotation_degrees=45))[:, :, 0, 0]
    assert (corners == 255).any()
    assert torch.equal(corners[:, 0], corners[:, 1])


def test_brightness_changes_the_distance_to_white() -> None:
    torch.manual_seed(0)
    grey = augment(plain((155, 155, 155), 256), only(brightness=0.2))[:, :, 24, 24]
    # the distance to white is 100; it becomes 80 to 120
    assert 135 <= grey.min() < 139
    assert 171 < grey.max() <= 175
    torch.testing.assert_close(grey[:, 0], grey[:, 2])


@pytest.mark.parametrize("change", [{"saturation": 0.5}, {"hue": 0.5}])
def test_saturation_and_hue_keep_grey_and_change_green(change: dict[str, float]) -> None:
    torch.manual_seed(0)
    grey = augment(plain((90, 90, 90)), only(**change))
    torch.testing.assert_close(grey, torch.full_like(grey, 90), rtol=0, atol=0.5)
    green = augment(plain((40, 160, 60)), only(**change))[:, :, 24, 24]
    assert (green - torch.tensor([40.0, 160, 60])).abs().amax(1).min() > 1


def test_erasing_fills_a_rectangle_with_white() -> None:
    torch.manual_seed(0)
    white = (augment(plain((10, 20, 30), 64), only(erasing=1)) == 255).all(1)
    part = white.float().mean((1, 2))
    assert part.min() > 0.01  # 2 %, rounded to whole pixels
    assert part.max() < 0.17
    for image in white:
        rows, columns = image.any(1), image.any(0)
        assert torch.equal(image, rows.unsqueeze(1) & columns)


def test_each_level_is_at_least_as_strong_as_the_one_before() -> None:
    light, moderate, heavy = (level(name) for name in LEVELS)
    for name in ("translation", "shear_degrees", "brightness", "saturation", "hue"):
        assert getattr(light, name) <= getattr(moderate, name) <= getattr(heavy, name)
    assert heavy.erasing > 0
    assert (light.disturbed, moderate.disturbed, heavy.disturbed) == (0, 0, 0)


def test_only_disturbed_images_leave_the_white_background_and_get_another_scale() -> None:
    torch.manual_seed(0)
    settings = only(disturbed=0.5, disturbed_scale=(0.5, 0.5), background=1)
    images = augment(leaves(64), settings)
    same = (images - leaves(1).float()).abs().flatten(1).amax(1) < 0.02
    assert int(same.sum()) in range(16, 48)
    # at half the scale, the square reaches from pixel 20 to 28
    green = torch.tensor([40.0, 160, 60])
    assert ((images[~same][:, :, 23, 23] - green).abs() < 1).all()
    assert ((images[~same][:, :, 17, 17] - green).abs().amax(1) > 1).all()
    white = (images[~same][:, :, :2, :2] == 255).flatten(1).all(1)
    assert white.float().mean() < 0.3  # few backgrounds are white


def test_the_level_of_the_recipe_disturbs_half_of_the_images() -> None:
    torch.manual_seed(0)
    images = augment(leaves(64), level("photographed", translation=0))
    assert images.min() >= -0.01
    assert images.max() <= 255.01  # resizing rounds
    white = (images[:, :, :2, :2] == 255).flatten(1).all(1)
    assert int(white.sum()) in range(16, 56)  # of the disturbed images, few stay white


def test_an_invalid_setting_is_reported_with_its_value_and_range() -> None:
    with pytest.raises(SettingError, match=r"augmentation\.flip is 2; it must be a number from 0 to 1"):
        level("light", flip=2)
    with pytest.raises(SettingError, match=r"augmentation\.hue is 0\.6; it must be a number from 0 to 0\.5"):
        level("light", hue=0.6)
    with pytest.raises(SettingError, match=r"augmentation\.blur is 'much'; it must be a number"):
        level("light", blur="much")
    for scale in ((1.2, 0.8), (1.0,), ("a", "b"), 1.0, "no"):
        with pytest.raises(SettingError, match=r"augmentation\.scale is .*; it must be two numbers above 0"):
            level("light", scale=scale)
