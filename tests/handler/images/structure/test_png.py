import struct
import zlib

import pytest

from tests.support.images import encode, gradient, png, png_chunk
from vinegrape_handler.errors import TooLarge
from vinegrape_handler.images.structure import check_structure

MAX_PIXELS = 1_000_000


@pytest.mark.parametrize("kind", [b"IDAT", b"tEXt", b"zTXt", b"prVt", b"fcTL", b"PLTE"])
def test_many_chunks_are_refused(kind):
    chunk = png_chunk(kind, b"")
    check_structure(png(1, 1, 8, 0, b"\0\0", chunk * 99_000), MAX_PIXELS)
    with pytest.raises(TooLarge, match="more than 100000 PNG chunks"):
        check_structure(png(1, 1, 8, 0, b"\0\0", chunk * 100_000), MAX_PIXELS)


def test_chunks_after_the_end_are_not_counted():
    check_structure(png(1, 1, 8, 0, b"\0\0") + png_chunk(b"prVt", b"") * 200_000, MAX_PIXELS)


def test_what_looks_like_chunks_inside_a_chunk_is_not_counted():
    check_structure(png(1, 1, 8, 0, b"\0\0", png_chunk(b"prVt", png_chunk(b"prVt", b"") * 200_000)), MAX_PIXELS)


@pytest.mark.parametrize(("depth", "colour_type", "height"), [(8, 6, 750), (16, 6, 375), (16, 4, 750), (16, 2, 500)])
def test_three_bytes_per_pixel_of_the_largest_image_are_accepted(depth, colour_type, height):
    check_structure(png(1000, height, depth, colour_type, b""), MAX_PIXELS)
    with pytest.raises(TooLarge, match="bytes of pixels when it is decompressed; at most 3000000"):
        check_structure(png(1000, height + 1, depth, colour_type, b""), MAX_PIXELS)


def test_an_animation_of_many_frames_is_accepted():
    data = encode(gradient(), "PNG", more=[gradient().rotate(angle) for angle in range(1, 100)], duration=50)
    assert data.count(b"fcTL") > 50
    check_structure(data, MAX_PIXELS)


def test_a_damaged_length_raises_nothing():
    head = png(1, 1, 8, 0, b"\0\0")[:33]
    for length in (0, 1, 2**31, 2**32 - 1):
        check_structure(head + struct.pack(">I", length) + b"IDAT" + zlib.compress(b"\0\0"), MAX_PIXELS)
