"""Whatever the bytes, `decode` gives an image or one of our own errors."""

import contextlib
import random

import pytest
from PIL import Image

from tests.support.images import big_endian_tiff, corners, encode, gradient
from vinegrape_handler.decode import Limits, decode
from vinegrape_handler.errors import RequestError
from vinegrape_handler.resize import resize

LIMITS = Limits(max_bytes=100_000, max_pixels=100_000)


def seeds() -> dict[str, bytes]:
    exif = Image.Exif()
    exif[0x112] = 6
    picture = gradient(40, 30)
    frames = {"more": [picture.rotate(90)]}
    return {
        "png": encode(picture, "PNG", exif=exif),
        "palette png": encode(picture.quantize(16), "PNG", transparency=3),
        "animated png": encode(picture, "PNG", **frames),
        "jpeg": encode(picture, "JPEG", exif=exif),
        "progressive jpeg": encode(picture, "JPEG", progressive=True),
        "cmyk jpeg": encode(picture.convert("CMYK"), "JPEG"),
        "two jpegs": encode(picture, "MPO", **frames),
        "webp": encode(picture, "WEBP", exif=exif),
        "lossless webp": encode(picture.convert("RGBA"), "WEBP", lossless=True),
        "animated webp": encode(picture, "WEBP", **frames),
        "bmp": encode(picture, "BMP"),
        "palette bmp": encode(picture.quantize(16), "BMP"),
        "tiff": encode(picture, "TIFF", exif=exif),
        "lzw tiff": encode(picture, "TIFF", compression="tiff_lzw"),
        "jpeg tiff": encode(picture, "TIFF", compression="jpeg"),
        "two-page tiff": encode(picture, "TIFF", **frames),
        "big-endian tiff": big_endian_tiff(corners()),
    }


def mutate(data: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, a piece cut out, doubled or blanked, or the end cut off; oftener near the beginning."""
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


@pytest.mark.filterwarnings("ignore")  # Pillow warns of much in such files
@pytest.mark.parametrize("name", seeds())
def test_mutations_give_an_image_or_an_error_of_ours(name):
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
    assert images  # else the seed itself does not decode
    assert errors  # else nothing was damaged


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", seeds())
def test_every_truncation_gives_an_image_or_an_error_of_ours(name):
    data = seeds()[name]
    for length in range(1, len(data), max(1, len(data) // 200)):
        with contextlib.suppress(RequestError):
            decode(data[:length], LIMITS, 16)
