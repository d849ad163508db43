"""Images with their transparency, which the service replaces by white: only training and measuring need it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from vinegrape_handler.errors import RequestError
from vinegrape_handler.images.decode import WHITE, decode
from vinegrape_training.data.dataset import LIMITS, read_file, unreadable

OPAQUE = 128
"""The smallest alpha, 0 to 255, of a pixel that belongs to the leaf."""

MAX_SIDE = 1024
"""Larger images are scaled down to this longer side, in pixels, so that time and memory per image have a bound."""


def read_rgba(path: Path) -> Image.Image:
    """Read an image with the colours that the service sees, and with its transparency.

    An image that the service does not read by blending its pixels with white alone (it has a colour profile or an
    orientation, for example) is returned as the service reads it, opaque.

    Returns:
        Image of mode RGBA, at most `MAX_SIDE` pixels per side.

    Raises:
        DataError: the image cannot be decoded; the message names it.
    """
    return rgba_of(read_file(path), path)


def rgba_of(data: bytes, name: object) -> Image.Image:
    """Read an image from its file's bytes, as `read_rgba` does.

    Raises:
        DataError: the image cannot be decoded; the message contains `name`.
    """
    try:
        served = decode(data, LIMITS, MAX_SIDE // 2)
        with Image.open(io.BytesIO(data)) as file:
            image = file.convert("RGBA") if file.has_transparency_data else served.convert("RGBA")
    except (RequestError, OSError) as error:
        raise unreadable(name, error) from error
    if not np.array_equal(np.asarray(on_white(image)), np.asarray(served)):
        image = served.convert("RGBA")
    image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BICUBIC)
    return image


def is_transparent(image: Image.Image) -> bool:
    """Return whether an RGBA image has pixels that do not belong to the leaf."""
    return bool(np.asarray(image.getchannel("A")).min() < OPAQUE)


def on_white(image: Image.Image) -> Image.Image:
    """Blend an RGBA image with white, as the service does."""
    canvas = Image.new("RGB", image.size, WHITE)
    canvas.paste(image, mask=image)
    return canvas
