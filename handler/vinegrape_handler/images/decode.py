"""Decode encoded images to RGB. Format and size are checked before any pixel is decoded."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps

from vinegrape_handler.errors import BrokenImage, NoImage, RequestError, TooLarge, UnsupportedFormat
from vinegrape_handler.images.structure import check_structure
from vinegrape_handler.images.structure.limits import SIDE
from vinegrape_handler.images.structure.time_limit import limit_time
from vinegrape_handler.settings import WorkerSettings

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")

# The first bytes of each format. Pillow raises the same error for a damaged header and for an unknown format; the
# signature tells the two cases apart. (WebP starts with RIFF, like other formats; see `has_signature`.)
_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")

WHITE = (255, 255, 255)

_DECODER_BYTES_PER_PIXEL = 12
# Pillow's error when a decoder lacks memory: IMAGING_CODEC_MEMORY, -9
_OUT_OF_MEMORY = ("decoder error -9", "out of memory")


@dataclass(frozen=True)
class Limits:
    """The maximum size of one image.

    Attributes:
        max_bytes: size of the encoded image.
        max_pixels: width times height of the decoded image.
    """

    max_bytes: int
    max_pixels: int

    @classmethod
    def of(cls, settings: WorkerSettings) -> Limits:
        """Take the limits from a worker's settings."""
        return cls(settings.max_image_bytes, settings.max_image_pixels)


def decode(data: bytes, limits: Limits, side: int) -> Image.Image:
    """Decode one image to RGB.

    The EXIF orientation is applied, transparent pixels are blended with white, and only the first frame of an animation
    or page of a TIFF is used. The JPEG decoder scales a large JPEG down to at least `2 * side` per side, which saves
    time and leaves the final quality to `resize`.

    Args:
        data: the encoded image: PNG, JPEG, WebP, BMP or TIFF.
        limits: checked before any pixel is decoded.
        side: pixels per side to which the image will be resized.

    Returns:
        The image in mode RGB, 8 bits per channel.

    Raises:
        NoImage: there are 0 bytes.
        TooLarge: the image exceeds a limit.
        UnsupportedFormat: the format, or the pixel type, is not supported.
        BrokenImage: the image is damaged.
        MemoryError: the image needs more memory than this process may use.
    """
    image = open_image(data, limits, side)
    limit_time(image)
    try:
        image.load()
        return _to_rgb(_apply_orientation(image))
    except (RequestError, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise many kinds of exceptions for damaged data
        if any(text in str(error) for text in _OUT_OF_MEMORY):
            raise MemoryError from error
        _check_memory(image.size)
        raise BrokenImage(f"The {image.format} image cannot be decoded: {error}") from error


def open_image(data: bytes, limits: Limits, side: int) -> ImageFile.ImageFile:
    """Read an image's header, check the limits, and choose the scale at which a JPEG will be decoded.

    Arguments and errors are those of `decode`.

    Returns:
        The image without its pixels. Its `size` is the size at which it will be decoded.
    """
    if not data:
        raise NoImage("The image is empty: 0 bytes.")
    if len(data) > limits.max_bytes:
        raise TooLarge(f"The image has {len(data)} bytes; at most {limits.max_bytes} are accepted.")
    check_structure(data, limits.max_pixels)
    # Pillow allocates the memory for a WebP before it returns its size
    if _is_webp(data):
        _check_pixels(_webp_size(data), limits)
    image = _read_header(data)
    _check_pixels(image.size, limits)
    try:
        image.draft(None, (2 * side, 2 * side))
    except MemoryError:
        raise
    except Exception as error:  # as in `decode`
        raise BrokenImage(f"The {image.format} image cannot be decoded: {error}") from error
    return image


def _check_pixels(size: tuple[int, int], limits: Limits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise TooLarge(f"The image has {width} x {height} pixels; at most {limits.max_pixels} are accepted.")
    SIDE.check(max(size))


def _check_memory(size: tuple[int, int]) -> None:
    """Check that there is enough memory for an image of this size, after it could not be decoded.

    libwebp reports missing memory and damaged data in the same way.

    Raises:
        MemoryError: there is not.
    """
    np.empty(_DECODER_BYTES_PER_PIXEL * size[0] * size[1], np.uint8)  # allocates without using the memory


def _read_header(data: bytes) -> ImageFile.ImageFile:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooLarge(f"The image has too many pixels: {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # as in `decode`; usually UnidentifiedImageError
        if has_signature(data):
            if _is_webp(data):
                _check_memory(_webp_size(data))
            raise BrokenImage("The image's header is damaged.") from error
        raise UnsupportedFormat(f"The bytes are not an image in a supported format ({', '.join(FORMATS)}).") from error


def has_signature(data: bytes | bytearray) -> bool:
    """Return whether data starts like an image in a supported format."""
    return data.startswith(_SIGNATURES) or _is_webp(data)


def _is_webp(data: bytes | bytearray) -> bool:
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def _webp_size(data: bytes) -> tuple[int, int]:
    """Read width and height from the header of a WebP (RFC 9649); (0, 0) if it is damaged."""
    kind = data[12:16]
    if kind == b"VP8X":  # extended: two numbers of 24 bits, minus 1
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":  # lossless: two numbers of 14 bits, minus 1
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":  # lossy: two numbers of 14 bits, and 2 bits that are not part of each
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    return 0, 0


def _apply_orientation(image: Image.Image) -> Image.Image:
    """Rotate or mirror the image as its EXIF orientation specifies."""
    try:
        if image.getexif().get(ExifTags.Base.Orientation, 1) == 1:
            return image
        return ImageOps.exif_transpose(image)
    except MemoryError:
        raise
    except Exception:  # a damaged EXIF block must not fail a good image
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode that Pillow decodes to RGB on white."""
    if image.mode in ("I", "F"):
        raise UnsupportedFormat(
            f"The image has 32-bit pixels (mode {image.mode}), whose value range is unknown. "
            "Send 8 or 16 bits per channel."
        )
    if image.mode.startswith("I;16"):
        image = _to_8_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        canvas = Image.new("RGB", image.size, WHITE)
        canvas.paste(image, mask=image)  # the mask is the alpha channel; twice as fast as getchannel("A")
        return canvas
    return image.convert("RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bits, where Pillow's own conversion would clip at 255."""
    values = np.asarray(image)
    grey = Image.fromarray((values >> 8).astype(np.uint8))
    if image.has_transparency_data:
        grey.putalpha(Image.fromarray(values != image.info["transparency"]))
    return grey
