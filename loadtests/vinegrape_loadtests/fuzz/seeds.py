"""Small valid images of every format, from which fuzzing starts. Their bytes are the same each time."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from vinegrape_loadtests.images import encode
from vinegrape_loadtests.worst_images import bmp, icc, jpeg, png, tiff, webp

_SIZE = (40, 30)
_ROTATED = 6  # an EXIF orientation


@cache
def seeds() -> dict[str, bytes]:
    """Return the images by name; each name begins with the name of its format."""
    image = _gradient()
    rgba, palette = image.convert("RGBA"), image.quantize(16)
    exif: Any = Image.Exif()
    exif[0x112] = _ROTATED
    broken_profile = b"not a profile" * 20
    zeros = bytes(16 * 16)
    profile = icc.matrix_profile()
    kinds = {f"tiff {name}": tiff.one_strip(tags) for name, tags in tiff.kinds(16).items()}
    return {
        "png": _encode(image, "PNG", exif=exif, icc_profile=broken_profile),
        "png grey": _encode(image.convert("L"), "PNG"),
        "png palette": _encode(palette, "PNG", transparency=3),
        "png rgba": _encode(rgba, "PNG"),
        "png 16 bits": _encode(Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257), "PNG"),
        "png animated": _encode(image, "PNG", more=[image.rotate(90)]),
        "png small chunks": png.flat(24, 16, idat=7, between=png.chunk(b"gAMA", bytes([0, 0, 177, 143]))),
        "jpeg": _encode(image, "JPEG", exif=exif, icc_profile=broken_profile),
        "jpeg progressive": _encode(image, "JPEG", progressive=True, subsampling=0),
        "jpeg cmyk": _encode(image.convert("CMYK"), "JPEG"),
        "jpeg grey": _encode(image.convert("L"), "JPEG", restart_marker_blocks=1),
        "jpeg two images": _encode(image, "MPO", more=[image.rotate(90)]),
        "jpeg many scans": jpeg.many_scans(64, 8, 10_000),
        "webp": _encode(image, "WEBP", exif=exif),
        "webp alpha": _encode(rgba, "WEBP"),
        "webp lossless": _encode(rgba, "WEBP", lossless=True),
        "webp animated": _encode(image, "WEBP", more=[image.rotate(90)]),
        "webp chunks": webp.webp(
            webp.extended(8, 8), _encode(image.resize((8, 8)), "WEBP")[12:], webp.chunk(b"ABCD", b"x")
        ),
        "bmp": _encode(image, "BMP"),
        "bmp palette": _encode(palette, "BMP"),
        "bmp rgba": _encode(rgba, "BMP"),
        "bmp rle8": bmp.runs(32, 8, bmp.RLE8, 20),
        "bmp rle4": bmp.runs(32, 4, bmp.RLE4, 20),
        "tiff": _encode(image, "TIFF", exif=exif),
        "tiff lzw": _encode(image, "TIFF", compression="tiff_lzw"),
        "tiff deflate": _encode(rgba, "TIFF", compression="tiff_adobe_deflate"),
        "tiff packbits": _encode(image, "TIFF", compression="packbits"),
        "tiff jpeg": _encode(image, "TIFF", compression="jpeg"),
        "tiff ccitt": _encode(image.convert("1"), "TIFF", compression="group4"),
        "tiff palette": _encode(palette, "TIFF"),
        "tiff two pages": _encode(image, "TIFF", more=[image.rotate(90)]),
        "tiff big": _encode(image, "TIFF", big_tiff=True),
        "tiff tiles": tiff.tiled(40, 16),
        "tiff strips": tiff.strips_of_rows(16, 12),
        "tiff 16 bits": tiff.in_strips(tiff.basic_tags(8, 8, 1, 16), 8, [zeros[:128]]),
        "png profile": _encode(image, "PNG", icc_profile=profile),
        "jpeg profile": _encode(image, "JPEG", icc_profile=profile),
        "jpeg cmyk profile": _encode(image.convert("CMYK"), "JPEG", icc_profile=icc.table_profile(b"CMYK", 4, 3)),
        "bmp 1 bit": _encode(image.convert("1"), "BMP"),
        "tiff planes": tiff.planes(16, 3),
        **kinds,
        "tiff big-endian": _big_endian(np.asarray(image.resize((16, 12)))),
    }


def _encode(image: Image.Image, format_: str, more: Sequence[Image.Image] = (), **options: object) -> bytes:
    """Encode a copy of an image, and of `more` frames: Pillow's encoders store their options in the image."""
    if more:
        options |= {"save_all": True, "append_images": [frame.copy() for frame in more]}
    return encode(image.copy(), format_, **options)


def _gradient() -> Image.Image:
    """Draw an image of different pixels, so that every change of the coded pixels shows."""
    width, height = _SIZE
    y, x = np.mgrid[:height, :width]
    channels = [x * 255 // (width - 1), y * 255 // (height - 1), (x + y) * 255 // (width + height - 2)]
    return Image.fromarray(np.dstack(channels).astype(np.uint8))


def _big_endian(pixels: np.ndarray[Any, Any]) -> bytes:
    """Return a TIFF file with big-endian numbers ("MM"); Pillow takes the order of the 16-bit pixels."""
    out = io.BytesIO()
    Image.fromarray(pixels[..., 0].astype(">u2")).save(out, "TIFF")
    return out.getvalue()
