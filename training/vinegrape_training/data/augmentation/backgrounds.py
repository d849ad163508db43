"""Drawn backgrounds: tables, stone, cloth, wood and soil, in any colour.

A network that has only seen leaves on white takes white for a property of the varieties. These backgrounds are drawn,
so no images have to be collected for them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from vinegrape_training.data.augmentation.random_numbers import choose, smooth_noise, uniform

_TEXTURED = 0.65  # probability of a texture
_GRAINED = 0.5  # probability that a texture is stretched in one direction, as wood is
_UNEVEN = 0.4  # probability that brightness changes across the background
_CAST_SHADOW = 0.4  # probability that the leaf casts a shadow on it
_TEXTURE_CELLS = (3, 7, 15, 40, 90)  # sizes of the spots, in spots per side
_SHADOW_BLUR = 8  # pixels that the outline of a cast shadow is blurred over


def draw_background(side: int) -> Tensor:
    """Draw one background: float32 [3, side, side], 0 to 255."""
    image = _colour().view(3, 1, 1).expand(3, side, side)
    if torch.rand(()) < _TEXTURED:
        amplitude = uniform(1, 3, 45)
        channels = torch.stack([torch.ones(1), uniform(1, 0.7, 1), uniform(1, 0.5, 1)]).view(3, 1, 1)
        image = image + amplitude * _texture(side) * channels
    if torch.rand(()) < _UNEVEN:
        image = image + uniform(1, 10, 50) * smooth_noise(side, 2, 2)
    return image.clamp(0, 255)


def replace_background(images: Tensor, opacity: Tensor, probability: float) -> Tensor:
    """Put some images on drawn backgrounds, with the shadow that the leaf casts.

    Args:
        images: float32 [N, 3, S, S], 0 to 255, on white.
        opacity: float32 [N, 1, S, S], 0 where the background is seen, 1 where the leaf is.
        probability: of another background.

    Returns:
        float32 [N, 3, S, S], 0 to 255. `images` is changed.
    """
    for index in choose(len(images), probability):
        background = draw_background(images.shape[-1])
        if torch.rand(()) < _CAST_SHADOW:
            background = background * _cast_shadow(opacity[index].cpu())
        # the image is leaf * opacity + 255 * (1 - opacity)
        images[index] -= (1 - opacity[index]) * (255 - background.to(images.device))
    return images


def _colour() -> Tensor:
    """Draw a colour [3]: any colour, or a grey, beige or brown, which tables and soil have."""
    if torch.rand(()) < 0.5:
        return (uniform(1, 30, 255) + uniform(1, 0, 60) * uniform(3, -1, 1)).clamp(0, 255)
    red = uniform(1, 60, 245)
    green = red * uniform(1, 0.75, 1)
    return torch.cat([red, green, green * uniform(1, 0.6, 1)])


def _texture(side: int) -> Tensor:
    """Draw spots of several sizes, or stripes: float32 [side, side], with a standard deviation of 1."""
    stretch = float(uniform(1, 2, 16)) if torch.rand(()) < _GRAINED else 1.0
    layers = [smooth_noise(side, cells, max(2, int(cells / stretch))) * uniform(1, 0.2, 1) for cells in _TEXTURE_CELLS]
    texture = torch.stack(layers).sum(0)
    if torch.rand(()) < 0.5:
        texture = texture.T
    if stretch > 1 and torch.rand(()) < 0.5:
        texture = torch.sin(texture * uniform(1, 2, 8))  # lines, as the rings of wood
    return texture / texture.std()


def _cast_shadow(opacity: Tensor) -> Tensor:
    """Return the light that reaches the background beside the leaf: float32 [1, S, S], 0 to 1."""
    side = opacity.shape[-1]
    reduced = interpolate(opacity[None], (max(1, side // _SHADOW_BLUR),) * 2, mode="area")
    soft = interpolate(reduced, (side, side), mode="bilinear", align_corners=False)[0]
    rows, columns = (uniform(2, -0.05, 0.05) * side).int().tolist()
    return 1 - uniform(1, 0.1, 0.6) * soft.roll((rows, columns), (1, 2))
