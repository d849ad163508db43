"""What training does to an image that leaves its variety as it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.transforms import v2  # type: ignore[import-untyped]
from vinegrape_handler.decode import WHITE
from vinegrape_handler.errors import SettingError


@dataclass(frozen=True)
class Augmentation:
    """How strongly an image is changed; the levels are `conf/augmentation/*.yaml`.

    Attributes:
        flip: the probability of a mirrored image, left-right and up-down each.
        rotation_degrees: at most, in either direction.
        translation: at most, as a fraction of the side, in either direction.
        scale: the smallest and the largest factor.
        shear_degrees: at most, in either direction.
        brightness, contrast, saturation: at most, as a fraction of the value itself.
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
    contrast: float
    saturation: float
    hue: float
    blur: float
    erasing: float

    def __post_init__(self) -> None:
        for name in ("flip", "translation", "blur", "erasing"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingError(f"augmentation.{name} must lie in 0 to 1; it is {getattr(self, name)}.")
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1]:
            raise SettingError(f"augmentation.scale must be [smallest, largest] above 0; it is {list(self.scale)}.")


class KeepWhite(nn.Module):
    """A change of colour that leaves pure white alone: transparency is laid on it, here and when serving."""

    def __init__(self, transform: nn.Module) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, image: Tensor) -> Tensor:
        """Change a uint8 [3, S, S] image."""
        white = (image == 255).all(dim=0, keepdim=True)
        return torch.where(white, image, self.transform(image))


class AroundWhite(nn.Module):
    """A map in which what comes from outside the frame is white.

    torchvision's own fill blends twice along the frame's edge, which draws a grey line round a turned white image;
    seen as a negative, white is the 0 that needs no fill.
    """

    def __init__(self, transform: nn.Module) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, image: Tensor) -> Tensor:
        """Map a uint8 [3, S, S] image."""
        negative: Tensor = self.transform(255 - image)
        return 255 - negative


def build(augmentation: Augmentation) -> v2.Compose:
    """Make the transform of uint8 [3, S, S] images, 0 to 255, to such images; draws from torch's global generator."""
    colour = v2.ColorJitter(augmentation.brightness, augmentation.contrast, augmentation.saturation, augmentation.hue)
    affine = v2.RandomAffine(
        augmentation.rotation_degrees,
        translate=(augmentation.translation, augmentation.translation),
        scale=augmentation.scale,
        shear=augmentation.shear_degrees,
        interpolation=v2.InterpolationMode.BILINEAR,
    )
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(augmentation.flip),
            v2.RandomVerticalFlip(augmentation.flip),
            KeepWhite(colour),  # before the affine map, whose interpolation blurs the edge to the white
            AroundWhite(affine),
            v2.RandomApply([v2.GaussianBlur(kernel_size=5, sigma=(0.3, 1.2))], augmentation.blur),
            v2.RandomErasing(augmentation.erasing, scale=(0.02, 0.15), value=[float(channel) for channel in WHITE]),
        ]
    )
