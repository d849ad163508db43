from __future__ import annotations

import torch

from vinegrape_training.data.augmentation.backgrounds import draw_background, replace_background


def test_backgrounds_differ_and_have_the_range_of_images() -> None:
    torch.manual_seed(0)
    backgrounds = torch.stack([draw_background(32) for _ in range(64)])
    assert backgrounds.shape == (64, 3, 32, 32)
    assert backgrounds.min() >= 0
    assert backgrounds.max() <= 255
    means = backgrounds.mean((1, 2, 3))
    assert means.min() < 80
    assert means.max() > 180
    flat = backgrounds.flatten(2).std(2).amax(1) < 1e-3
    assert 0 < int(flat.sum()) < 64  # some are plain, others have a texture


def test_the_leaf_stays_as_it_is_and_its_half_transparent_edge_is_blended() -> None:
    torch.manual_seed(1)
    opacity = torch.zeros(8, 1, 16, 16)
    opacity[:, :, :, 8:] = 1
    opacity[:, :, :, 7] = 0.5
    leaf = torch.full((8, 3, 16, 16), 100.0)
    on_white = leaf * opacity + 255 * (1 - opacity)
    images = replace_background(on_white.clone(), opacity, probability=1)
    assert (images[..., 8:] == 100).all()
    background = images[..., 0]
    assert (background < 255).any(dim=(1, 2)).all()
    low, high = torch.minimum(leaf[..., 0], background) - 40, torch.maximum(leaf[..., 0], background) + 40
    assert ((images[..., 7] >= low) & (images[..., 7] <= high)).float().mean() > 0.9


def test_without_a_chance_nothing_changes() -> None:
    images = torch.rand(4, 3, 16, 16) * 255
    assert torch.equal(replace_background(images.clone(), torch.zeros(4, 1, 16, 16), probability=0), images)
