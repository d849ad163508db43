"""Explain a prediction: the class activation map as a heat map, and as a picture of the image with its heat map."""

from __future__ import annotations

import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vinegrape_handler.classifier import FittedImage

# Every 32nd colour of matplotlib's "inferno" (Smith and van der Walt, CC0), whose lightness rises evenly: equal steps
# of the heat look equal, also without colour vision
_ANCHORS = (
    (0, 0, 4),
    (33, 12, 74),
    (87, 16, 110),
    (138, 34, 106),
    (188, 55, 84),
    (228, 90, 49),
    (249, 142, 9),
    (249, 203, 53),
    (252, 255, 164),
)  # fmt: skip
_STEPS = np.linspace(0, 255, len(_ANCHORS))
_PALETTE = np.stack([np.interp(np.arange(256), _STEPS, channel) for channel in np.transpose(_ANCHORS)], axis=1)
_PALETTE_BYTES = np.rint(_PALETTE).astype(np.uint8).tobytes()

_COLOUR_SHARE = 0.55  # of the picture; the rest is the image in grey
# Of zlib. The PNG is a fifth larger than with the default level, and takes a third of the time
_COMPRESSION_LEVEL = 1


def heat_map(
    activation_map: NDArray[np.float32], image: FittedImage, size: tuple[int, int] | None = None
) -> NDArray[np.float32]:
    """Return the heat of each place of an image.

    The heat is the positive part of the activation map, divided by its maximum. Places that speak against the class
    have heat 0, and so have all places if none speaks for it. The white margins of the square are left out.

    Args:
        activation_map: of one class, float32 [h, w], over the square.
        image: the image in the square.
        size: columns and rows of the result; None for the resolution of the map.

    Returns:
        float32 [rows, columns], 0 to 1.
    """
    rows, columns = activation_map.shape
    side = len(image.pixels)
    left, top = _corner(image)
    across, down = columns / side, rows / side  # places per pixel
    box = (left * across, top * down, (left + image.width) * across, (top + image.height) * down)
    size = size or (math.ceil(image.width * across), math.ceil(image.height * down))
    resized = Image.fromarray(activation_map).resize(size, Image.Resampling.BICUBIC, box)
    positive = np.maximum(np.asarray(resized), 0)
    heat: NDArray[np.float32] = positive / max(positive.max(), np.finfo(np.float32).tiny)
    return heat


def draw_overlay(activation_map: NDArray[np.float32], image: FittedImage) -> bytes:
    """Draw the heat map of `heat_map` over the image, without the white margins.

    The image is grey; the heat goes from black over red to yellow.

    Returns:
        A PNG in the size that the image has in the network's input.
    """
    heat = heat_map(activation_map, image, (image.width, image.height))
    colours = Image.fromarray(np.rint(255 * heat).astype(np.uint8))
    colours.putpalette(_PALETTE_BYTES)
    left, top = _corner(image)
    inside = Image.fromarray(image.pixels[top : top + image.height, left : left + image.width])
    picture = Image.blend(inside.convert("L").convert("RGB"), colours.convert("RGB"), _COLOUR_SHARE)
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=_COMPRESSION_LEVEL)
    return file.getvalue()


def _corner(image: FittedImage) -> tuple[int, int]:
    """Return where the image begins in its square, as `resize` places it: from the left and from the top."""
    side = len(image.pixels)
    return (side - image.width) // 2, (side - image.height) // 2
