"""Test images: a drawn leaf on white, and a photo as large as a phone's."""

from __future__ import annotations

import io

import numpy as np
from PIL import ExifTags, Image, ImageChops

from vinegrape_training.data import drawn_leaves

WHITE = (255, 255, 255)

_PHOTO_SIZE = (4032, 3024)  # 12 megapixels
_GRAIN = 24  # of 255, in both directions; the JPEG file then has 2.6 MB
_ROTATED_LEFT = 6  # EXIF orientation of a photo taken with an upright phone


def encode(image: Image.Image, format_: str, **options: object) -> bytes:
    """Encode one image in memory.

    Args:
        image: the image.
        format_: Pillow's name of the format, such as "PNG".
        options: options of Pillow's encoder.
    """
    out = io.BytesIO()
    image.save(out, format_, **options)
    return out.getvalue()


def encode_jpeg_within(image: Image.Image, max_bytes: int) -> bytes:
    """Encode a JPEG at the highest quality (100, 95, ..., 5) that stays within a size; at 5 if none does."""
    files = [encode(image, "JPEG", quality=quality) for quality in range(100, 0, -5)]
    return next((file for file in files if len(file) <= max_bytes), files[-1])


def flatten_on_white(image: Image.Image) -> Image.Image:
    """Replace transparency by white; returns an RGB image."""
    image = image.convert("RGBA")
    canvas = Image.new("RGB", image.size, WHITE)
    canvas.paste(image, mask=image)
    return canvas


def draw_leaf(kind: str, side: int) -> Image.Image:
    """Draw the same leaf on white each time.

    Args:
        kind: a key of `drawn_leaves.KINDS`.
        side: width and height in pixels.
    """
    return flatten_on_white(drawn_leaves.draw_leaf(kind, np.random.default_rng(0), side))


def draw_photo() -> bytes:
    """Draw a 12-megapixel JPEG of a leaf, with sensor grain so that the file is as large as a phone's."""
    width, height = _PHOTO_SIZE
    grain = np.random.default_rng(0).integers(0, 2 * _GRAIN, (height // 8, width // 8, 3), dtype=np.uint8)
    grained = Image.fromarray(np.tile(grain, (8, 8, 1)))
    photo = ImageChops.add(draw_leaf("Nazli", 1024).resize(_PHOTO_SIZE), grained, offset=-_GRAIN)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = _ROTATED_LEFT
    return encode(photo, "JPEG", quality=85, exif=exif)
