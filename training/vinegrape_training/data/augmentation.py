"""What training does to images that leaves their variety as it is: a whole batch at once, on any device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, conv2d, grid_sample

from vinegrape_handler.errors import SettingError

# RGB to luma and two axes of colour, as NTSC has it: saturation scales those axes, hue turns them, grey stays grey
_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))

BLUR_SIGMA = (0.3, 1.2)  # pixels
_ERASED_AREA = (0.02, 0.15)
_ERASED_ASPECT = (0.3, 3.3)


@dataclass(frozen=True)
class Augmentation:
    """How strongly an image is changed; the levels are `conf/augmentation/*.yaml`.

    Attributes:
        flip: the probability of a mirrored image, left-right and up-down each.
        rotation_degrees: at most, in either direction.
        translation: at most, as a fraction of the side, in either direction.
        scale: the smallest and the largest factor.
        shear_degrees: at most, in either direction.
        brightness: how much darker or lighter at most, as a fraction of what is missing to white.
        saturation: at most, as a fraction of the value itself.
        hue: at most, as a fraction of the colour circle, up to 0.5.
        blur: the probability of a slight blur, as of a leaf out of focus.
        erasing: the probability that a rectangle of 2 to 15 % of the image turns white.
    """

    flip: float
    rotation_degrees: float
    translation: float
    scale: tuple[float, float]
    shear_degrees: float
    brightness: float
    saturation: float
    hue: float
    blur: float
    erasing: float

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name != "scale" and not isinstance(value, (int, float)):
                raise SettingError(f"augmentation.{name} must be a number; it is {value!r}.")
        for name in ("flip", "translation", "brightness", "saturation", "blur", "erasing"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingError(f"augmentation.{name} must lie in 0 to 1; it is {getattr(self, name)}.")
        if not 0 <= self.hue <= 0.5:
            raise SettingError(f"augmentation.hue must lie in 0 to 0.5; it is {self.hue}.")
        if not _is_range(self.scale):
            raise SettingError(f"augmentation.scale must be [smallest, largest] above 0; it is {self.scale}.")


def _is_range(scale: object) -> bool:
    """Whether it is two numbers above 0, the smaller first."""
    return (
        isinstance(scale, Sequence)
        and len(scale) == 2
        and all(isinstance(factor, (int, float)) for factor in scale)
        and 0 < scale[0] <= scale[1]
    )


def augment(images: Tensor, augmentation: Augmentation) -> Tensor:
    """Change each image of a batch in its own way.

    White stays white, and what comes from outside the frame is white: transparency is laid on it, here and when
    serving. Everything is drawn from torch's global generator on the CPU, so a seed means the same on every device.

    Args:
        images: uint8 [N, 3, S, S].
        augmentation: how strongly.

    Returns:
        float32 [N, 3, S, S], 0 to 255.
    """
    # Of the negative, white is the 0 that every map below leaves alone: nothing has to be masked or filled, where
    # torchvision's own fill draws a grey line round turned images
    negatives = (255 - images).float()
    negatives = _recolour(negatives, augmentation)
    negatives = grid_sample(negatives, _grid(negatives, augmentation), align_corners=False)
    negatives = _blur(negatives, augmentation.blur)
    negatives = _erase(negatives, augmentation.erasing)
    return 255 - negatives


def _uniform(count: int, low: float, high: float) -> Tensor:
    return torch.rand(count) * (high - low) + low


def _recolour(negatives: Tensor, augmentation: Augmentation) -> Tensor:
    """Brightness, saturation and hue: one 3 x 3 matrix an image."""
    count = len(negatives)
    darkness = _uniform(count, 1 - augmentation.brightness, 1 + augmentation.brightness)
    saturation = _uniform(count, 1 - augmentation.saturation, 1 + augmentation.saturation)
    hue = 2 * math.pi * augmentation.hue * _uniform(count, -1, 1)
    chroma = torch.stack([hue.cos(), -hue.sin(), hue.sin(), hue.cos()], dim=1).view(count, 2, 2)
    matrices = torch.eye(3).repeat(count, 1, 1)
    matrices[:, 1:, 1:] = saturation.view(count, 1, 1) * chroma
    yiq = torch.tensor(_YIQ)
    matrices = darkness.view(count, 1, 1) * (yiq.inverse() @ matrices @ yiq)
    changed = matrices.to(negatives.device) @ negatives.flatten(2)
    return changed.view_as(negatives).clamp_(0, 255)


def _grid(images: Tensor, augmentation: Augmentation) -> Tensor:
    """Where each pixel of the result comes from: [N, S, S, 2], in -1 to 1 over the image."""
    count = len(images)
    angle = math.radians(augmentation.rotation_degrees) * _uniform(count, -1, 1)
    shear = (math.radians(augmentation.shear_degrees) * _uniform(count, -1, 1)).tan()
    scale = 1 / _uniform(count, *augmentation.scale)
    signs = 1 - 2 * (torch.rand(count, 2) < augmentation.flip).float()
    cosine, sine, zero = angle.cos(), angle.sin(), torch.zeros(count)
    rotation = torch.stack([cosine, -sine, sine, cosine], dim=1).view(count, 2, 2)
    stretch = torch.stack([scale * signs[:, 0], scale * shear, zero, scale * signs[:, 1]], dim=1).view(count, 2, 2)
    shift = 2 * augmentation.translation * _uniform(2 * count, -1, 1).view(count, 2, 1)
    maps = torch.cat([rotation @ stretch, shift], dim=2)  # [N, 2, 3]
    return affine_grid(maps.to(images.device), list(images.shape), align_corners=False)


def _blur(images: Tensor, probability: float) -> Tensor:
    """Blur some images by a Gaussian of 5 x 5 pixels, each by its own sigma."""
    chosen = (torch.rand(len(images)) < probability).nonzero().flatten()
    if not len(chosen):
        return images
    sigma = _uniform(len(chosen), *BLUR_SIGMA).view(-1, 1)
    line = torch.exp(-(torch.arange(-2, 3).float() ** 2) / (2 * sigma**2))
    line = line / line.sum(dim=1, keepdim=True)
    kernels = (line.unsqueeze(2) * line.unsqueeze(1)).repeat_interleave(3, dim=0).unsqueeze(1)  # [3 * chosen, 1, 5, 5]
    side = images.shape[-1]
    picked = images[chosen].view(1, -1, side, side)  # an image's channels as groups of their own
    blurred = conv2d(picked, kernels.to(images), padding=2, groups=len(kernels))
    images[chosen] = blurred.view(-1, 3, side, side)
    return images


def _erase(negatives: Tensor, probability: float) -> Tensor:
    """Turn a rectangle of some images white."""
    count, side = len(negatives), negatives.shape[-1]
    chosen = torch.rand(count) < probability
    area = _uniform(count, *_ERASED_AREA)
    aspect = _uniform(count, *map(math.log, _ERASED_ASPECT)).exp()
    inside = chosen.view(-1, 1)
    edges = []
    for length in ((area * aspect).sqrt(), (area / aspect).sqrt()):
        start = torch.rand(count) * (1 - length)
        positions = (torch.arange(side) + 0.5) / side
        edges.append(inside & (positions >= start.view(-1, 1)) & (positions < (start + length).view(-1, 1)))
    erased = edges[0].unsqueeze(2) & edges[1].unsqueeze(1)  # [N, S, S]
    return negatives.masked_fill(erased.unsqueeze(1).to(negatives.device), 0)
