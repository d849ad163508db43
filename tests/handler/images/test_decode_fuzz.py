"""For any bytes, `decode` returns an image or raises a RequestError."""

import contextlib
import random

import numpy as np
import pytest
from PIL import Image

from tests.support import icc
from tests.support.images import big_endian_tiff, corners, encode, gradient
from tests.support.tiff import BLACK_IS_ZERO, RGB, WHITE_IS_ZERO, tiff
from vinegrape_handler.errors import RequestError
from vinegrape_handler.images.decode import Limits, decode
from vinegrape_handler.images.resize import resize

LIMITS = Limits(max_bytes=100_000, max_pixels=100_000)
PROFILE = icc.matrix_profile(icc.DISPLAY_P3, icc.parametric_srgb(), 4)


def seeds() -> dict[str, bytes]:
    exif = Image.Exif()
    exif[0x112] = 6
    image = gradient(40, 30)
    frames = {"more": [image.rotate(90)]}
    return {
        "png": encode(image, "PNG", exif=exif),
        "palette png": encode(image.quantize(16), "PNG", transparency=3),
        "animated png": encode(image, "PNG", **frames),
        "jpeg": encode(image, "JPEG", exif=exif),
        "progressive jpeg": encode(image, "JPEG", progressive=True),
        "cmyk jpeg": encode(image.convert("CMYK"), "JPEG"),
        "two jpegs": encode(image, "MPO", **frames),
        "webp": encode(image, "WEBP", exif=exif),
        "lossless webp": encode(image.convert("RGBA"), "WEBP", lossless=True),
        "animated webp": encode(image, "WEBP", **frames),
        "bmp": encode(image, "BMP"),
        "palette bmp": encode(image.quantize(16), "BMP"),
        "tiff": encode(image, "TIFF", exif=exif),
        "lzw tiff": encode(image, "TIFF", compression="tiff_lzw"),
        "jpeg tiff": encode(image, "TIFF", compression="jpeg"),
        "two-page tiff": encode(image, "TIFF", **frames),
        "big-endian tiff": big_endian_tiff(corners()),
        "png with a profile": encode(image, "PNG", icc_profile=PROFILE, exif=exif),
        "jpeg with a profile": encode(image, "JPEG", icc_profile=PROFILE),
        "jpeg without its end": encode(image, "JPEG")[:-2],
        "white-is-zero tiff": tiff(np.asarray(image.convert("I;16")).astype(int), WHITE_IS_ZERO, 16),
        "12-bit tiff": tiff(np.asarray(image.convert("L")).astype(int) * 16, BLACK_IS_ZERO, 12),
        "tiff of planes": tiff(np.asarray(image), RGB, 8, planar=True, byte_order=">"),
        "black and white bmp": encode(image.convert("1"), "BMP"),
    }


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Change, overwrite, remove or repeat a few bytes, or cut off the end; more often near the start of the file."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = int(len(changed) * rng.random() ** rng.choice((1, 3)))
        piece = slice(at, at + rng.randint(1, 16))
        match rng.randrange(6):
            case 0 | 1:
                changed[piece] = rng.randbytes(len(changed[piece]))
            case 2:
                changed[piece] = bytes([rng.choice((0, 1, 0x7F, 0x80, 0xFF))]) * len(changed[piece])
            case 3:
                del changed[piece]
            case 4:
                changed[at:at] = changed[piece]
            case 5:
                del changed[at:]
    return bytes(changed)


@pytest.mark.filterwarnings("ignore")  # Pillow warns about damaged metadata
@pytest.mark.parametrize("name", seeds())
def test_a_damaged_file_gives_an_image_or_a_request_error(name):
    data, rng = seeds()[name], random.Random(name)
    images = errors = 0
    for _ in range(300):
        try:
            image = decode(mutate(data, rng), LIMITS, 16)
        except RequestError:
            errors += 1
        else:
            assert image.mode == "RGB"
            assert resize(image, 16, "bicubic").shape == (16, 16, 3)
            images += 1
    assert images  # the undamaged file can be decoded
    assert errors  # the damage has an effect


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", seeds())
def test_a_truncated_file_gives_an_image_or_a_request_error(name):
    data = seeds()[name]
    for length in range(1, len(data), max(1, len(data) // 200)):
        with contextlib.suppress(RequestError):
            decode(data[:length], LIMITS, 16)
