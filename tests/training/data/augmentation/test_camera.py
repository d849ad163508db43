from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vinegrape_training.data.augmentation import camera

CHANGES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "shadow": camera.add_shadow,
    "light": camera.change_light,
    "blur": lambda images, probability: camera.blur(images, probability, (0.5, 2.5)),
    "low resolution": camera.reduce_resolution,
    "noise": camera.add_noise,
    "jpeg": camera.compress,
}


def edges() -> Tensor:
    """Images with a dark left half and a bright right half: float32 [64, 3, 32, 32]."""
    images = torch.full((64, 3, 32, 32), 60.0)
    images[..., 16:] = 200
    return images


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_applied_to_its_share_of_the_images_and_keeps_their_range(name: str) -> None:
    torch.manual_seed(0)
    changed = CHANGES[name](edges(), 0.5)
    assert changed.min() >= 0
    assert changed.max() <= 255
    assert int((changed != edges()).flatten(1).any(1).sum()) in range(16, 48)
    assert torch.equal(CHANGES[name](edges(), 0), edges())


def test_a_shadow_only_darkens() -> None:
    torch.manual_seed(0)
    assert (camera.add_shadow(edges(), 1) <= edges()).all()


def test_light_makes_images_darker_and_brighter_warmer_and_colder() -> None:
    torch.manual_seed(0)
    grey = camera.change_light(torch.full((64, 3, 8, 8), 120.0), 1)[:, :, 0, 0]
    assert grey.mean(1).min() < 90
    assert grey.mean(1).max() > 150
    warmth = grey[:, 0] - grey[:, 2]
    assert warmth.min() < -15
    assert warmth.max() > 15


def test_blur_keeps_the_mean_and_softens_the_edge() -> None:
    torch.manual_seed(0)
    blurred = camera.blur(edges(), 1, (1.0, 2.0))
    torch.testing.assert_close(blurred.mean((1, 2, 3)), edges().mean((1, 2, 3)), rtol=1e-3, atol=0)
    assert (blurred[:, :, 16, 15] > 61).all()
    assert (blurred[:, :, 16, 0] < 61).all()


def test_jpeg_changes_edges_by_a_few_levels() -> None:
    torch.manual_seed(0)
    difference = (camera.compress(edges() + 10 * torch.rand(64, 3, 32, 32), 1) - edges()).abs()
    assert 0 < difference.mean() < 15
