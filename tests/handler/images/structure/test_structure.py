"""Ordinary images are within the limits, and `decode` checks them."""

import re
import struct

import pytest
from PIL import Image

from tests.handler.images.structure.test_jpeg import with_scans
from tests.support.images import FORMATS, encode, gradient, png
from vinegrape_handler.errors import TooLarge
from vinegrape_handler.images.decode import Limits, decode, open_image
from vinegrape_handler.images.structure import check_structure
from vinegrape_handler.images.structure.limits import LIMITS, SIDE

EVERYTHING = Limits(max_bytes=10**8, max_pixels=10**8)


@pytest.mark.parametrize("format_", FORMATS)
def test_an_image_of_the_most_pixels_is_accepted(format_):
    most = 80_000 if format_ == "WEBP" else 60_000  # a WebP is decoded to RGBA, with 4/3 of the bytes
    check_structure(encode(gradient(300, 200), format_), most)


@pytest.mark.parametrize("signature", [b"", b"GIF89a", b"RIFF\0\0\0\0WEBPVP8 ", b"II*\0", b"MM\0+", b"BM", b"\x89PNG"])
def test_other_bytes_and_signatures_alone_raise_nothing(signature):
    for length in range(40):
        check_structure(signature + b"\xff" * length, 1000)
        check_structure(signature + bytes(length), 1000)


@pytest.mark.parametrize("size", [(SIDE.most + 1, 1), (1, SIDE.most + 1)])
@pytest.mark.parametrize("format_", ["PNG", "JPEG", "BMP", "TIFF"])
def test_a_longer_side_is_refused(size, format_):
    open_image(encode(Image.new("L", (SIDE.most, 1)), format_), EVERYTHING, 16)
    with pytest.raises(TooLarge, match=f"more than {SIDE.most} pixels on its longer side"):
        open_image(encode(Image.new("L", size), format_), EVERYTHING, 16)


def test_one_column_of_fifty_million_rows_is_refused():
    with pytest.raises(TooLarge, match="longer side"):
        decode(png(1, 50_000_000, 8, 6, b""), EVERYTHING, 16)


def test_decode_checks_the_structure_before_the_header_is_read():
    with pytest.raises(TooLarge, match="scans"):
        decode(with_scans(100, 1000, 1000), Limits(10**6, 10**6), 16)


def test_no_limit_has_the_same_words_as_another():
    assert len({limit.parts for limit in LIMITS}) == len(LIMITS)
    for limit in LIMITS:
        limit.check(limit.most)
        with pytest.raises(TooLarge, match=re.escape(f"more than {limit.most} {limit.parts}")):
            limit.check(limit.most + 1)


def test_a_damaged_png_header_raises_nothing():
    check_structure(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + b"\xff" * 5, 1000)
