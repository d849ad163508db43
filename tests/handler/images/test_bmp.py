"""The palettes of a BMP."""

import struct

import numpy as np
import pytest

from vinegrape_handler.images.decode import Limits, decode

LIMITS = Limits(max_bytes=1_000_000, max_pixels=1_000_000)


def bmp(bits: int, greys: list[int], row: bytes) -> bytes:
    """A BMP of one row of four pixels."""
    palette = b"".join(bytes([grey, grey, grey, 0]) for grey in greys)
    header = struct.pack("<IiiHHIIiiII", 40, 4, 1, 1, bits, 0, 4, 0, 0, len(greys), 0)
    start = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + 4, 0, 0, start) + header + palette + row.ljust(4, b"\0")


@pytest.mark.parametrize(
    ("bits", "row"), [(1, bytes([0b01100000])), (4, bytes([0x01, 0x10])), (8, bytes([0, 1, 1, 0]))], ids=[1, 4, 8]
)
@pytest.mark.parametrize("greys", [[0, 255], [255, 0], [30, 200], [0, 1]], ids=str)
def test_a_palette_of_two_greys_is_applied(bits, row, greys):
    found = np.asarray(decode(bmp(bits, greys, row), LIMITS, 64)).astype(int)[0]
    assert np.abs(found - np.array(greys)[[0, 1, 1, 0]][:, None]).max() <= 1


@pytest.mark.parametrize("greys", [list(range(16)), list(range(0, 256, 17)), list(range(15, -1, -1))], ids=str)
def test_a_palette_of_16_greys_is_applied(greys):
    found = np.asarray(decode(bmp(4, greys, bytes([0x0F, 0xF8])), LIMITS, 64)).astype(int)[0]
    assert np.abs(found - np.array(greys)[[0, 15, 15, 8]][:, None]).max() <= 1
