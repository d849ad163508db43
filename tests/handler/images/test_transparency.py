"""What an image says about transparent pixels is read as viewers read it."""

import struct

import numpy as np
import pytest
from PIL import Image

from tests.support.images import encode, png, png_chunk
from vinegrape_handler.errors import BrokenImage
from vinegrape_handler.images.decode import Limits, decode

LIMITS = Limits(max_bytes=1_000_000, max_pixels=1_000_000)


def pixels(data) -> list:
    return np.asarray(decode(data, LIMITS, 64)).tolist()


def bmp(pixel: bytes, masks: tuple[int, int, int, int] | None, bits: int) -> bytes:
    """A BMP of one pixel; with masks, its header has 56 bytes (BITMAPV3INFOHEADER)."""
    header = struct.pack("<iiHHIIiiII", 1, 1, 1, bits, 3 if masks else 0, 4, 0, 0, 0, 0)
    header += struct.pack("<4I", *masks) if masks else b""
    pixel = pixel.ljust(4, b"\0")
    start = 14 + 4 + len(header)
    return b"BM" + struct.pack("<IHHI", start + 4, 0, 0, start) + struct.pack("<I", 4 + len(header)) + header + pixel


BGRA = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)


@pytest.mark.parametrize("masks", [BGRA, None], ids=["with masks", "without masks"])
def test_a_bmp_whose_alpha_is_zero_everywhere_is_opaque(masks):
    assert pixels(bmp(bytes([50, 100, 200, 0]), masks, 32)) == [[[200, 100, 50]]]


def test_the_alpha_of_a_bmp_is_applied():
    assert pixels(bmp(bytes([50, 100, 200, 51]), BGRA, 32)) == [[[244, 224, 214]]]


@pytest.mark.parametrize(
    ("masks", "value", "colour"),
    [
        (None, 31 << 10 | 16 << 5 | 0, [255, 131, 0]),  # 5 bits each
        ((0x7C00, 0x3E0, 0x1F, 0), 31 << 10 | 16 << 5 | 0, [255, 131, 0]),
        ((0xF800, 0x7E0, 0x1F, 0), 31 << 11 | 32 << 5 | 0, [255, 130, 0]),  # green has 6 bits
    ],
)
def test_the_16_bits_of_a_bmp_are_scaled(masks, value, colour):
    found = np.array(pixels(bmp(struct.pack("<H", value), masks, 16)))
    assert np.abs(found - colour).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("format_", ["PNG", "TIFF", "WEBP"])
def test_a_fully_transparent_image_is_an_error(format_, mode):
    data = encode(Image.new("RGBA", (4, 4), (100, 50, 20, 0)).convert(mode), format_)
    with pytest.raises(BrokenImage, match="fully transparent"):
        pixels(data)


def test_one_visible_pixel_is_enough():
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    assert pixels(encode(image, "PNG")) == [[[255] * 3, [0] * 3]]


def transparent(*numbers: int) -> bytes:
    return png_chunk(b"tRNS", struct.pack(f">{len(numbers)}H", *numbers))


@pytest.mark.parametrize(
    ("depth", "row", "key", "greys"),
    [
        (1, 0b01000000, 1, [0, 255]),
        (2, 0b01100000, 2, [85, 255]),
        (4, 0b01011010, 10, [85, 255]),
    ],
)
def test_a_transparent_grey_of_few_bits_becomes_white(depth, row, key, greys):
    """Two pixels; the second one has the transparent value."""
    found = pixels(png(2, 1, depth, 0, bytes([0, row]), transparent(key)))
    assert found == [[[grey] * 3 for grey in greys]]


def test_a_transparent_value_of_8_bit_grey_becomes_white():
    assert pixels(png(2, 1, 8, 0, bytes([0, 7, 8]), transparent(7))) == [[[255] * 3, [8] * 3]]


def test_a_transparent_colour_of_16_bits_becomes_white():
    rows = b"\0" + struct.pack(">6H", 0x1234, 0x5678, 0x9ABC, 0x3412, 0x7856, 0xBC9A)
    found = pixels(png(2, 1, 16, 2, rows, transparent(0x1234, 0x5678, 0x9ABC)))
    assert found == [[[255] * 3, [0x34, 0x78, 0xBC]]]


def test_16_bit_grey_with_alpha_is_blended_with_white():
    rows = b"\0" + struct.pack(">6H", 0x8080, 0xFFFF, 0x8080, 0x8080, 0, 0)
    found = np.array(pixels(png(3, 1, 16, 4, rows)))[0, :, 0]
    assert np.abs(found - [128, 191, 255]).max() <= 1
