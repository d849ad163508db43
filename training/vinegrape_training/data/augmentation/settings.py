"""The strength of each change. The levels are in `conf/augmentation/*.yaml`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vinegrape_handler.errors import SettingError
from vinegrape_training.checks import check_number

_PROBABILITIES = (
    "flip",
    "background",
    "shadow",
    "light",
    "blur",
    "low_resolution",
    "noise",
    "jpeg",
    "erasing",
    "disturbed",
)
_SHARES = ("translation", "brightness", "saturation")


@dataclass(frozen=True)
class Augmentation:
    """Strength of each change.

    Attributes:
        flip: probability of a horizontal flip, and of a vertical flip.
        rotation_degrees: maximum rotation in either direction.
        translation: maximum shift in either direction, as a fraction of the side.
        scale: smallest and largest scale factor.
        shear_degrees: maximum shear in either direction.
        brightness: maximum relative change of the distance to white.
        saturation: maximum relative change.
        hue: maximum change, as a fraction of the colour circle, 0 to 0.5.
        erasing: probability that a rectangle of 2 to 15 % of the image becomes white.
        disturbed: share of the images that also get the changes below.
        disturbed_scale: smallest and largest scale factor of these images, drawn evenly on a logarithmic scale.
        background: probability that another background replaces white, see `backgrounds`.
        shadow: probability of a soft shadow across the image.
        light: probability of other light: exposure, white balance, gamma, contrast.
        blur: probability of a blur, as of a leaf out of focus.
        blur_sigma: smallest and largest standard deviation of the blur, in pixels.
        low_resolution: probability that the image is reduced and enlarged again.
        noise: probability of noise.
        jpeg: probability of a compression as JPEG.
    """

    flip: float
    rotation_degrees: float
    translation: float
    scale: tuple[float, float]
    shear_degrees: float
    brightness: float
    saturation: float
    hue: float
    erasing: float
    disturbed: float
    disturbed_scale: tuple[float, float]
    background: float
    shadow: float
    light: float
    blur: float
    blur_sigma: tuple[float, float]
    low_resolution: float
    noise: float
    jpeg: float

    def __post_init__(self) -> None:
        for name in (*_PROBABILITIES, *_SHARES):
            check_number(f"augmentation.{name}", getattr(self, name), float, 0, 1)
        check_number("augmentation.hue", self.hue, float, 0, 0.5)
        check_number("augmentation.rotation_degrees", self.rotation_degrees, float, 0, 360)
        check_number("augmentation.shear_degrees", self.shear_degrees, float, 0, 89)
        for name in ("scale", "disturbed_scale", "blur_sigma"):
            if not _is_range(getattr(self, name)):
                raise SettingError(
                    f"augmentation.{name} is {getattr(self, name)!r}; "
                    "it must be two numbers above 0, [smallest, largest]."
                )


def _is_range(value: object) -> bool:
    """Whether this is two numbers above 0 in ascending order."""
    return (
        isinstance(value, Sequence)
        and len(value) == 2
        and all(isinstance(number, (int, float)) for number in value)
        and 0 < value[0] <= value[1]
    )
