import struct

import pytest

from tests.support.images import encode, gradient
from vinegrape_handler.errors import TooLarge
from vinegrape_handler.images.structure import check_structure

RLE8, RLE4, RAW = 1, 2, 0


def bmp(width: int, height: int, compression: int, pixels: bytes = b"") -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, compression, len(pixels), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 1024 + len(pixels), 0, 0, 54 + 1024) + header + bytes(1024) + pixels


@pytest.mark.parametrize("compression", [RLE8, RLE4])
@pytest.mark.parametrize("sign", [1, -1])
def test_many_run_length_encoded_pixels_are_refused(compression, sign):
    check_structure(bmp(2500, 2000 * sign, compression), 10**8)
    with pytest.raises(TooLarge, match=r"more than 5000000 run-length encoded pixels \(BMP\)"):
        check_structure(bmp(2500, 2001 * sign, compression), 10**8)


@pytest.mark.parametrize("compression", [RLE8, RLE4])
def test_many_bytes_of_run_length_encoding_are_refused(compression):
    check_structure(bmp(10, 10, compression, bytes(1_900_000)), 10**8)
    with pytest.raises(TooLarge, match="more than 2000000 bytes of run-length encoding"):
        check_structure(bmp(10, 10, compression, bytes(2_000_000)), 10**8)


def test_other_bmps_may_be_larger():
    check_structure(bmp(5000, 1000, RAW, bytes(5_000_000)), 10**8)
    check_structure(encode(gradient(), "BMP"), 10**8)


def test_a_header_that_ends_early_raises_nothing():
    for length in range(2, 54):
        check_structure(bmp(5000, 5000, RLE8)[: min(length, 33)], 10**8)
