"""Bytes to an RGB image: allowed formats only, checked before a pixel is decoded."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, ImageOps

from vinegrape_handler.errors import BrokenImage, NoImage, TooLarge, UnsupportedFormat
from vinegrape_handler.settings import WorkerSettings

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")

# How each format begins. Pillow reports a damaged header and a foreign format alike; these tell them apart.
_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")

WHITE = (255, 255, 255)


@dataclass(frozen=True)
class Limits:
    """What one image may measure, encoded (bytes) and decoded (pixels: width times height)."""

    max_bytes: int
    max_pixels: int

    @classmethod
    def of(cls, settings: WorkerSettings) -> Limits:
        """The limits that a worker's settings name."""
        return cls(settings.max_image_bytes, settings.max_image_pixels)


def decode(data: bytes, limits: Limits, side: int) -> Image.Image:
    """Decode one image as a person would see it: upright, in RGB, transparency laid on white.

    A JPEG much larger than needed is scaled down by its own decoder, to at least twice `side` a side, so that
    the resize after it still decides how the image looks. Of an animation or a stack, the first frame.

    Args:
        data: the encoded image: PNG, JPEG, WebP, BMP or TIFF.
        limits: checked before any pixel is decoded.
        side: pixels a side that the image will be resized to.

    Returns:
        The image in mode RGB, 8 bits a channel.

    Raises:
        NoImage, TooLarge, UnsupportedFormat, BrokenImage: the image's own fault, each with its status.
    """
    image = open_image(data, limits, side)
    try:
        image.load()
        return _to_rgb(_upright(image))
    except UnsupportedFormat:
        raise
    except Exception as error:  # damaged bytes make Pillow's decoders raise nearly anything
        raise BrokenImage(f"The {image.format} image cannot be decoded: {error}") from error


def open_image(data: bytes, limits: Limits, side: int) -> Image.Image:
    """Read the header alone, hold it against the limits, and choose the scale at which a JPEG will be decoded.

    Arguments and errors are those of `decode`; the image's size is what decoding it will take.
    """
    if not data:
        raise NoImage("The image is empty: 0 bytes.")
    if len(data) > limits.max_bytes:
        raise TooLarge(f"The image has {len(data)} bytes; at most {limits.max_bytes} are accepted.")
    image = _identify(data)
    width, height = image.size
    if width * height > limits.max_pixels:
        raise TooLarge(f"The image has {width} x {height} pixels; at most {limits.max_pixels} are accepted.")
    try:
        image.draft(None, (2 * side, 2 * side))
    except Exception as error:  # as in decode
        raise BrokenImage(f"The {image.format} image cannot be decoded: {error}") from error
    return image


def _identify(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooLarge(f"The image has too many pixels: {error}") from error
    except Exception as error:  # as in decode; UnidentifiedImageError among others
        if data.startswith(_SIGNATURES) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP"):
            raise BrokenImage("The image's header is damaged.") from error
        formats = ", ".join(FORMATS)
        raise UnsupportedFormat(f"These bytes are not an image in a format served here ({formats}).") from error


def _upright(image: Image.Image) -> Image.Image:
    """Turn the image as its EXIF orientation asks."""
    try:
        if image.getexif().get(ExifTags.Base.Orientation, 1) == 1:
            return image
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF raises nearly anything; the picture counts, not the notes on it
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any mode that Pillow decodes to, as RGB on white."""
    if image.mode in ("I", "F"):
        raise UnsupportedFormat(
            f"The image has 32-bit pixels (mode {image.mode}), whose range is not known; send 8 or 16 bits a channel."
        )
    if image.mode.startswith("I;16"):
        image = _to_8_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        canvas = Image.new("RGB", image.size, WHITE)
        canvas.paste(image, mask=image)  # its alpha; half the time of naming the channel
        return canvas
    return image.convert("RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
    """16-bit grey, scaled: Pillow's own conversion clips at 255."""
    values = np.asarray(image)
    grey = Image.fromarray((values >> 8).astype(np.uint8))
    if image.has_transparency_data:
        grey.putalpha(Image.fromarray(values != image.info["transparency"]))
    return grey
