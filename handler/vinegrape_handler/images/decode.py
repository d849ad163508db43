"""Decode encoded images to RGB. Format and size are checked before any pixel is decoded."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageFile

from vinegrape_handler.errors import BrokenImage, NoImage, RequestError, TooLarge, UnsupportedFormat
from vinegrape_handler.images import bmp, jpeg, png, tiff, webp
from vinegrape_handler.images.color import Info, to_srgb
from vinegrape_handler.images.kinds import FORMATS, name_kind, unsupported
from vinegrape_handler.images.orientation import apply_orientation
from vinegrape_handler.images.quiet import quiet_decoder
from vinegrape_handler.images.structure import check_structure
from vinegrape_handler.images.structure.jpeg import jpeg_coefficient_bytes
from vinegrape_handler.images.structure.limits import SIDE
from vinegrape_handler.images.time_limit import limit_time
from vinegrape_handler.settings import WorkerSettings

# The first bytes of each format. Pillow raises the same error for a damaged header and for an unknown format; the
# signature tells the two cases apart. (For WebP see `has_signature`.)
_SIGNATURES = (png.SIGNATURE, jpeg.SIGNATURE, bmp.SIGNATURE, *tiff.SIGNATURES)

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

    The EXIF orientation is applied, colours are converted to sRGB, transparent pixels are blended with white, and only
    the first frame of an animation or page of a TIFF is used. The JPEG decoder scales a large JPEG down to at least
    `2 * side` per side, which saves time and leaves the final quality to `resize`. A JPEG may lack its end marker, but
    none of its pixels.

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
        BrokenImage: the image is damaged, or fully transparent.
        MemoryError: the image needs more memory than this process may use.
    """
    image = open_image(data, limits, side)
    limit_time(image)
    webp.release_decoder_early(image)
    try:
        with quiet_decoder(image.format):
            loaded = _load(image, data, side)
        return _to_rgb(apply_orientation(loaded), loaded.info, side)
    except (RequestError, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise many kinds of exceptions for damaged data
        if any(text in str(error) for text in _OUT_OF_MEMORY):
            raise MemoryError from error
        _check_memory(image.size, jpeg_coefficient_bytes(image))
        _check_kind(data, is_opened=True)
        raise BrokenImage(f"The {image.format} image cannot be decoded: {error}") from error


def open_image(data: bytes, limits: Limits, side: int) -> ImageFile.ImageFile:
    """Read an image's header, check the limits, and choose the scale at which a JPEG will be decoded.

    Arguments and errors are those of `decode`.

    Returns:
        The image without its pixels. Its `size` is the size at which it will be decoded.
    """
    return _open(data, limits, side)[0]


def decoding_work(data: bytes, limits: Limits, side: int) -> int:
    """Return what decoding an image costs, as a number of pixels.

    It is the number of its pixels when it is decoded, or more if its structure costs more. Arguments and errors are
    those of `decode`.
    """
    image, share = _open(data, limits, side)
    return max(image.size[0] * image.size[1], round(share * limits.max_pixels))


def _open(data: bytes, limits: Limits, side: int) -> tuple[ImageFile.ImageFile, float]:
    """Open an image; return also the share of the work that one image may cost, see `check_structure`."""
    if not data:
        raise NoImage("The image is empty: 0 bytes.")
    if len(data) > limits.max_bytes:
        raise TooLarge(f"The image has {len(data)} bytes; at most {limits.max_bytes} are accepted.")
    share = check_structure(data, limits.max_pixels)
    # Pillow allocates the memory for a WebP before it returns its size
    if webp.is_webp(data):
        _check_pixels(webp.read_size(data), limits)
    image = _read_header(data)
    _check_pixels(image.size, limits)
    try:
        image.draft(None, (2 * side, 2 * side))
    except MemoryError:
        raise
    except Exception as error:  # as in `decode`
        raise BrokenImage(f"The {image.format} image cannot be decoded: {error}") from error
    return image, share


def _check_pixels(size: tuple[int, int], limits: Limits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise TooLarge(f"The image has {width} x {height} pixels; at most {limits.max_pixels} are accepted.")
    SIDE.check(max(size))


def _check_memory(size: tuple[int, int], more_bytes: int = 0) -> None:
    """Check that there is enough memory for an image of this size, after it could not be decoded.

    libwebp and libjpeg report missing memory and damaged data in the same way.

    Args:
        size: of the decoded image, in pixels.
        more_bytes: what its decoder needs beside that.

    Raises:
        MemoryError: there is not.
    """
    np.empty(_DECODER_BYTES_PER_PIXEL * size[0] * size[1] + more_bytes, np.uint8)  # allocates without using the memory


def _read_header(data: bytes) -> ImageFile.ImageFile:
    try:
        if data.startswith(png.SIGNATURE):
            return png.open_png(data)
        if data.startswith(jpeg.SIGNATURE):
            return jpeg.open_jpeg(data)
        if data.startswith(tiff.SIGNATURES):
            return tiff.open_tiff(data)
        if data.startswith(bmp.SIGNATURE):
            return bmp.open_bmp(data)
        return Image.open(io.BytesIO(data), formats=("WEBP",))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooLarge(f"The image has too many pixels: {error}") from error
    except (RequestError, MemoryError):
        raise
    except Exception as error:  # as in `decode`; usually UnidentifiedImageError
        _check_kind(data, is_opened=False)
        if webp.is_webp(data):
            _check_memory(webp.read_size(data))
        raise BrokenImage("The image's header is damaged.") from error


def _check_kind(data: bytes, is_opened: bool) -> None:
    """Check whether bytes that Pillow cannot decode are of a kind that is not supported, instead of damaged.

    Args:
        data: the encoded image.
        is_opened: Pillow could read its header.

    Raises:
        UnsupportedFormat: they are.
    """
    if not has_signature(data):
        kind = name_kind(data)
        if not kind:
            raise UnsupportedFormat(f"The bytes are not an image in a supported format ({', '.join(FORMATS)}).")
    elif data.startswith(tiff.SIGNATURES):
        kind = tiff.unsupported_kind(data, is_opened)
    elif data.startswith(bmp.SIGNATURE) and not is_opened:
        kind = bmp.unsupported_kind(data)
    else:
        kind = ""
    if kind:
        raise UnsupportedFormat(unsupported(kind))


def has_signature(data: bytes | bytearray) -> bool:
    """Return whether data starts like an image in a supported format."""
    return data.startswith(_SIGNATURES) or webp.is_webp(data)


def _load(image: ImageFile.ImageFile, data: bytes, side: int) -> Image.Image:
    """Decode the pixels, also of a JPEG that has no end marker, if none of them is missing."""
    try:
        image.load()
    except OSError as error:
        if image.format != "JPEG" or "truncated" not in str(error):
            raise
        image = jpeg.open_jpeg(jpeg.add_end(data))
        image.draft(None, (2 * side, 2 * side))
        limit_time(image)
        image.load()
    return image


def _to_rgb(image: Image.Image, info: Info, side: int) -> Image.Image:
    """Convert any mode that Pillow decodes to sRGB on white.

    Args:
        image: the decoded image.
        info: of the image as it was opened.
        side: see `decode`.

    Raises:
        BrokenImage: the image is fully transparent.
    """
    if image.mode.startswith("I;16"):
        image = _to_8_bits(image, info.get(tiff.BITS, 16))
    if tiff.WHITE_IS_ZERO in info:
        image = ImageChops.invert(image)
    if image.format == "BMP" and image.mode == "RGBA" and not image.getbbox():
        image = image.convert("RGB")  # many programs write 0 as alpha without a meaning
    image = to_srgb(_to_plain_mode(image), info, side)
    if image.mode == "LA":
        image = image.convert("RGBA")
    if image.mode == "RGBA":
        if not image.getbbox():  # of all pixels that are not fully transparent
            raise BrokenImage("The image is fully transparent, so there is nothing to see.")
        canvas = Image.new("RGB", image.size, WHITE)
        canvas.paste(image, mask=image)  # the mask is the alpha channel; twice as fast as getchannel("A")
        return canvas
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_plain_mode(image: Image.Image) -> Image.Image:
    """Convert an image to L, LA, RGB, RGBA, CMYK or LAB."""
    if image.mode == "La":
        return image.convert("LA")  # Pillow does not convert La to RGBA
    is_grey = image.mode in ("L", "LA")
    if image.has_transparency_data:
        mode = "LA" if is_grey else "RGBA"
    else:
        mode = image.mode if is_grey or image.mode in ("CMYK", "LAB") else "RGB"
    return image if mode == image.mode else image.convert(mode)


def _to_8_bits(image: Image.Image, bits: int) -> Image.Image:
    """Scale 12-bit or 16-bit grey to 8 bits, where Pillow's own conversion would clip at 255."""
    values = np.asarray(image)
    grey = Image.fromarray((values >> (bits - 8)).astype(np.uint8))
    if image.has_transparency_data:
        grey.putalpha(Image.fromarray(values != image.info["transparency"]))
    return grey
