"""Named changes to the image of a leaf, each with a few strengths, to measure how well a network stands them.

They are for measuring only: training has its own random augmentation (`data/augmentation.py`), and never uses these.
Every function is deterministic: the same image and strength give the same pixels.

Lengths are pixels of an image whose longer side has `REFERENCE_SIDE` pixels; they are scaled to the image's own size.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from vinegrape_handler.images.decode import WHITE
from vinegrape_training.data.transparency import OPAQUE, on_white

REFERENCE_SIDE = 511  # of the data set's images

# A photo's white balance changes red and blue in opposite directions
_LIGHT = (0.1, 0.2, 0.3)
_SHARE = (0.3, 0.6, 1.0)
_SHADOW = (0.2, 0.4, 0.6)

_SHADOW_EDGE_PX = 50  # width of the soft edge of a shadow that falls on the leaf
_CAST_PX, _CAST_BLUR_PX = 12, 10  # distance and blur of the shadow that the leaf casts
_NOISE_SEED = 0

_GREY, _BEIGE, _BLACK, _BLUE = (128, 128, 128), (222, 203, 170), (0, 0, 0), (60, 100, 170)
_LIGHT_WOOD, _DARK_WOOD = (196, 154, 106), (146, 104, 66)


@dataclass(frozen=True)
class Corruption:
    """A change to an image.

    Attributes:
        name: such as "dark".
        parameter: what the strength is, with its unit.
        strengths: from the weakest to the strongest change.
        required: the strength at which at least 95 % known and 95 % right are required; None if there is none.
        apply: takes an RGBA image and a strength, and returns an RGB image.
        needs_alpha: the background must be transparent, so an image without transparency is left out.
    """

    name: str
    parameter: str
    strengths: tuple[float, ...]
    required: float | None
    apply: Callable[[Image.Image, float], Image.Image]
    needs_alpha: bool = False


def _brightness(image: Image.Image, factor: float) -> Image.Image:
    """Multiply all values by `factor`, and clip at white."""
    return ImageEnhance.Brightness(on_white(image)).enhance(factor)


def _blur(image: Image.Image, deviation_px: float) -> Image.Image:
    """Blur with a Gaussian of this standard deviation."""
    return on_white(image).filter(ImageFilter.GaussianBlur(deviation_px * _scale(image)))


def _light(image: Image.Image, change: float) -> Image.Image:
    """Multiply red by 1 + `change` and blue by 1 - `change`: above 0 for warm light, below 0 for cold light."""
    gains = (1 + change, 1.0, 1 - change)
    return on_white(image).point([min(255, round(gain * value)) for gain in gains for value in range(256)])


def _cold_light(image: Image.Image, change: float) -> Image.Image:
    return _light(image, -change)


def _jpeg(image: Image.Image, quality: float) -> Image.Image:
    """Encode as a JPEG with Pillow's quality from 1 to 95, and decode it."""
    encoded = io.BytesIO()
    on_white(image).save(encoded, "JPEG", quality=int(quality))
    return Image.open(encoded).convert("RGB")


def _small(image: Image.Image, factor: float) -> Image.Image:
    """Shrink the image by `factor`, below 1, in the middle of a white frame of the same size."""
    width, height = image.size
    smaller = on_white(image).resize((round(width * factor), round(height * factor)), Image.Resampling.BICUBIC)
    frame = Image.new("RGB", image.size, WHITE)
    frame.paste(smaller, ((width - smaller.width) // 2, (height - smaller.height) // 2))
    return frame


def _large(image: Image.Image, factor: float) -> Image.Image:
    """Magnify by `factor`, above 1, around the middle of the leaf, but only until the leaf fills the frame."""
    left, upper, right, lower = _leaf_box(image)
    return _close_up(image, min(factor, image.width / (right - left), image.height / (lower - upper)))


def _close_up(image: Image.Image, factor: float) -> Image.Image:
    """Magnify by `factor`, above 1, around the middle of the leaf. What is outside the frame then is cut off."""
    left, upper, right, lower = _leaf_box(image)
    width, height = (length / factor for length in image.size)
    x, y = (left + right - width) / 2, (upper + lower - height) / 2
    part = image.crop((round(x), round(y), round(x + width), round(y + height)))  # transparent outside the image
    return on_white(part.resize(image.size, Image.Resampling.BICUBIC))


def _crop(image: Image.Image, share: float) -> Image.Image:
    """Cut off the right side of the frame, so that this share of the leaf's width is missing."""
    left, _, right, _ = _leaf_box(image)
    return on_white(image).crop((0, 0, max(1, round(right - share * (right - left))), image.height))


def _rotation(image: Image.Image, degrees: float) -> Image.Image:
    """Turn around the middle of the frame, counter-clockwise. The frame stays; its corners become white."""
    return on_white(image).rotate(degrees, Image.Resampling.BICUBIC, fillcolor=WHITE)


def _plain_background(image: Image.Image, share: float, colour: tuple[int, int, int]) -> Image.Image:
    """Put the leaf on a plain background: a mixture of white and, with this share, the colour."""
    return _on(image, Image.new("RGB", image.size, colour), share)


def _wood_background(image: Image.Image, share: float) -> Image.Image:
    """Put the leaf on a mixture of white and, with this share, a wooden board."""
    return _on(image, _wood(image.size), share)


def _shadow(image: Image.Image, darkening: float) -> Image.Image:
    """Let a shadow with a soft edge fall on the lower right half, where all values lose this share."""
    lit = on_white(image)
    return Image.composite(ImageEnhance.Brightness(lit).enhance(1 - darkening), lit, _lower_right_half(image.size))


def _cast_shadow(image: Image.Image, darkening: float) -> Image.Image:
    """Let the leaf cast a soft shadow to the lower right on the white background, which loses up to this share."""
    distance, blur = (round(length * _scale(image)) for length in (_CAST_PX, _CAST_BLUR_PX))
    shape = Image.new("L", image.size)
    shape.paste(image.getchannel("A"), (distance, distance))
    shade = shape.filter(ImageFilter.GaussianBlur(blur)).point([round(value * darkening) for value in range(256)])
    background = Image.new("RGB", image.size, WHITE)
    background.paste((0, 0, 0), mask=shade)
    return _on(image, background, 1.0)


def _noise(image: Image.Image, deviation: float) -> Image.Image:
    """Add Gaussian noise of this standard deviation to each value of each pixel."""
    noisy = np.asarray(on_white(image)) + deviation * _standard_noise(image.size)
    return Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))


def _low_resolution(image: Image.Image, side_px: float) -> Image.Image:
    """Scale down until the longer side has `side_px` pixels."""
    smaller = on_white(image)
    smaller.thumbnail((int(side_px), int(side_px)), Image.Resampling.BICUBIC)
    return smaller


CORRUPTIONS: tuple[Corruption, ...] = (
    Corruption("dark", "factor of the brightness", (0.8, 0.6, 0.4), 0.6, _brightness),
    Corruption("bright", "factor of the brightness", (1.2, 1.4, 1.6), 1.4, _brightness),
    Corruption("blur", f"standard deviation, px of {REFERENCE_SIDE}", (1, 2, 4), 2, _blur),
    Corruption("warm_light", "more red and less blue, as a share", _LIGHT, 0.2, _light),
    Corruption("cold_light", "less red and more blue, as a share", _LIGHT, 0.2, _cold_light),
    Corruption("jpeg", "quality", (50, 30, 10), 30, _jpeg),
    Corruption("small", "factor of the leaf's width", (0.7, 0.5, 0.35), 0.5, _small),
    Corruption("large", "factor of the leaf's width, until it fills the frame", (1.25, 1.5, 2.0), 2.0, _large, True),
    Corruption("close_up", "factor of the leaf's width", (1.25, 1.5, 2.0), None, _close_up),
    Corruption("crop", "missing share of the leaf's width", (0.05, 0.1, 0.2), 0.1, _crop),
    Corruption("rotation", "degrees", (15, 45, 90, 180), 90, _rotation),
    *(
        Corruption(
            f"{name}_background",
            "share of the colour, the rest is white",
            _SHARE,
            1.0,
            partial(_plain_background, colour=colour),
            needs_alpha=True,
        )
        for name, colour in {"grey": _GREY, "beige": _BEIGE, "black": _BLACK, "blue": _BLUE}.items()
    ),
    Corruption("wood_background", "share of the wood, the rest is white", _SHARE, 1.0, _wood_background, True),
    Corruption("shadow", "loss of brightness, as a share", _SHADOW, 0.4, _shadow),
    Corruption("cast_shadow", "loss of brightness, as a share", _SHADOW, 0.4, _cast_shadow, True),
    Corruption("noise", "standard deviation, of 255", (5, 10, 20), None, _noise),
    Corruption("low_resolution", "longer side, px", (160, 96, 64), None, _low_resolution),
)
"""All corruptions, in the order of the tables."""


def _scale(image: Image.Image) -> float:
    return max(image.size) / REFERENCE_SIDE


def _leaf_box(image: Image.Image) -> tuple[int, int, int, int]:
    """Return left, upper, right and lower edge of what is opaque; without transparency, of the whole frame."""
    opaque = image.getchannel("A").point([255 if value >= OPAQUE else 0 for value in range(256)])
    return opaque.getbbox() or (0, 0, *image.size)


def _on(leaf: Image.Image, background: Image.Image, share: float) -> Image.Image:
    """Blend a leaf with a background, of which only this share is mixed into white."""
    canvas = Image.blend(Image.new("RGB", leaf.size, WHITE), background, share)
    canvas.paste(leaf, mask=leaf)
    return canvas


@lru_cache(maxsize=2)
def _lower_right_half(size: tuple[int, int]) -> Image.Image:
    """Draw a mask: 255 to the lower right of a diagonal, 0 to the upper left, with a soft edge."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    distance = (x - width / 2 + y - height / 2) / np.sqrt(2) / (max(size) / REFERENCE_SIDE)  # reference pixels
    return Image.fromarray((255 * np.clip(distance / _SHADOW_EDGE_PX + 0.5, 0, 1)).astype(np.uint8))


@lru_cache(maxsize=2)
def _standard_noise(size: tuple[int, int]) -> np.ndarray:
    """Draw Gaussian noise of standard deviation 1, float32 [H, W, 3]; the same for each image of a size."""
    return np.random.default_rng(_NOISE_SEED).standard_normal((size[1], size[0], 3), dtype=np.float32)


@lru_cache(maxsize=2)
def _wood(size: tuple[int, int]) -> Image.Image:
    """Draw six wooden boards side by side: wavy stripes of two browns, with dark joints."""
    width, height = size
    y, x = np.mgrid[:height, :width] / (max(size) / 6.0)  # a board is 1 wide
    board = np.floor(x)
    waves = 3 * np.sin(0.9 * y + 2.1 * board) + 0.6 * np.sin(3.1 * y + board)
    tone = 0.5 + 0.2 * np.sin(17 * x + waves) + 0.15 * np.sin(41 * x + 2 * waves) + 0.15 * np.sin(5 * board)
    joint = np.clip(np.abs(x - np.rint(x)) / 0.02, 0.4, 1)
    light, dark = np.array(_LIGHT_WOOD), np.array(_DARK_WOOD)
    colours = (dark + (light - dark) * np.clip(tone, 0, 1)[..., None]) * joint[..., None]
    return Image.fromarray(np.rint(colours).astype(np.uint8))
