"""TIFFs that are written tag by tag: they claim more than their bytes hold."""

import struct

import pytest

from tests.handler.images.structure.test_jpeg import with_scans
from tests.support.images import encode, gradient
from vinegrape_handler.errors import TooLarge
from vinegrape_handler.images.structure import check_structure
from vinegrape_handler.images.structure.tiff import check_exif

MAX_PIXELS = 1_000_000
BYTE, SHORT, LONG, RATIONAL = 1, 3, 4, 5
SIZES = {BYTE: 1, SHORT: 2, LONG: 4, RATIONAL: 8}
WIDTH, HEIGHT, BITS, COMPRESSION, STRIPS, CHANNELS, STRIP_SIZES = 256, 257, 258, 259, 273, 277, 279
TILE_WIDTH, TILE_HEIGHT, TILES = 322, 323, 324
EXIF, GPS = 34665, 34853
PRIVATE = 50_000


def tiff(*tags: tuple[int, int, int, int], rest: bytes = b"", order: str = "<", big: bool = False) -> bytes:
    """A TIFF of 64 x 64 pixels. Tags: number, type, count, and the value or its position, which may be in `rest`."""
    tags = ((WIDTH, LONG, 1, 64), (HEIGHT, LONG, 1, 64), *tags)
    head = (b"II" if order == "<" else b"MM") + struct.pack(
        order + ("HHHQ" if big else "HI"), *((43, 8, 0, 16) if big else (42, 8))
    )
    entries = b""
    for number, type_, count, value in tags:
        width = "Q" if big else "I"
        field = struct.pack(order + width, value)
        if count * SIZES[type_] < len(field):
            field = struct.pack(order + {1: "B", 2: "H", 4: "I"}[SIZES[type_]], value).ljust(len(field), b"\0")
        entries += struct.pack(order + "HH" + width, number, type_, count) + field
    return head + struct.pack(order + ("Q" if big else "H"), len(tags)) + entries + bytes(8) + rest


VARIANTS = pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True), (">", True)])


@VARIANTS
@pytest.mark.parametrize("kind", [STRIPS, TILES])
def test_many_strips_or_tiles_are_refused(kind, order, big):
    check_structure(tiff((kind, LONG, 100_000, 8), rest=bytes(400_000), order=order, big=big), MAX_PIXELS)
    with pytest.raises(TooLarge, match="more than 100000 TIFF strips or tiles"):
        check_structure(tiff((kind, LONG, 100_001, 8), rest=bytes(400_000), order=order, big=big), MAX_PIXELS)


@VARIANTS
def test_many_tags_are_refused(order, big):
    tags = [(PRIVATE + number, SHORT, 1, 0) for number in range(998)]
    check_structure(tiff(*tags, order=order, big=big), MAX_PIXELS)
    with pytest.raises(TooLarge, match="more than 1000 tags in one TIFF directory"):
        check_structure(tiff(*tags, (PRIVATE - 1, SHORT, 1, 0), order=order, big=big), MAX_PIXELS)


@VARIANTS
@pytest.mark.parametrize("type_", [SHORT, LONG, RATIONAL])
def test_many_numbers_are_refused(type_, order, big):
    rest = bytes(600_000)
    check_structure(tiff((PRIVATE, type_, 499_998, 8), rest=rest, order=order, big=big), MAX_PIXELS)
    with pytest.raises(TooLarge, match="more than 500000 numbers in its TIFF tags"):
        check_structure(tiff((PRIVATE, type_, 499_999, 8), rest=rest, order=order, big=big), MAX_PIXELS)


def test_megabytes_of_bytes_are_accepted():
    """XMP, ICC profiles and Photoshop's data are bytes."""
    check_structure(tiff((700, BYTE, 5_000_000, 8), rest=bytes(5_000_000)), MAX_PIXELS)


@pytest.mark.parametrize("pointer", [EXIF, GPS])
def test_numbers_in_exif_data_are_counted(pointer):
    other = struct.pack("<HHHII", 1, PRIVATE, RATIONAL, 600_000, 8) + bytes(4)
    position = len(tiff((pointer, LONG, 1, 0)))
    with pytest.raises(TooLarge, match="numbers"):
        check_structure(tiff((pointer, LONG, 1, position), rest=other + bytes(600_000)), MAX_PIXELS)


def test_pointers_that_lead_to_each_other_end():
    tags = [(EXIF, LONG, 1, 8), (GPS, LONG, 1, 8), (40965, LONG, 1, 8)] * 300
    check_structure(tiff(*tags), MAX_PIXELS)


def test_a_pointer_out_of_the_file_hides_nothing():
    with pytest.raises(TooLarge, match="strips"):
        check_structure(tiff((STRIPS, LONG, 200_000, 8), (EXIF, LONG, 1, 2**32 - 1), rest=bytes(800_000)), MAX_PIXELS)


def test_a_tag_that_cannot_be_in_the_file_is_left_out():
    """Pillow ignores it."""
    check_structure(tiff((PRIVATE, LONG, 2**31, 8), (STRIPS, LONG, 2**31, 8)), MAX_PIXELS)


def test_a_huge_tile_is_refused():
    check_structure(tiff((TILES, LONG, 1, 8), (TILE_WIDTH, LONG, 1, 2048), (TILE_HEIGHT, LONG, 1, 1024)), MAX_PIXELS)
    with pytest.raises(TooLarge, match="484000000 bytes of pixels"):
        check_structure(
            tiff(
                (TILES, LONG, 1, 8), (TILE_WIDTH, LONG, 1, 22_000), (TILE_HEIGHT, LONG, 1, 22_000), (BITS, SHORT, 1, 8)
            ),
            MAX_PIXELS,
        )


def test_the_larger_of_two_equal_tags_counts():
    tiles = [(TILES, LONG, 1, 8), (BITS, SHORT, 1, 8), (TILE_HEIGHT, LONG, 1, 22_000)]
    for widths in ((16, 22_000), (22_000, 16)):
        with pytest.raises(TooLarge, match="bytes of pixels"):
            check_structure(tiff(*tiles, *((TILE_WIDTH, LONG, 1, width) for width in widths)), MAX_PIXELS)


@pytest.mark.parametrize(("bits", "channels", "height"), [(8, 4, 750), (16, 4, 375), (16, 3, 500)])
def test_three_bytes_per_pixel_of_the_largest_image_are_accepted(bits, channels, height):
    def image(height):
        return tiff(
            (WIDTH, LONG, 1, 1000), (HEIGHT, LONG, 1, height), (BITS, SHORT, 1, bits), (CHANNELS, SHORT, 1, channels)
        )

    check_structure(image(height), MAX_PIXELS)
    with pytest.raises(TooLarge, match="bytes of pixels when it is decompressed; at most 3000000"):
        check_structure(image(height + 1), MAX_PIXELS)


def test_the_scans_of_a_jpeg_in_a_tiff_are_counted():
    def image(scans, strips=1):
        jpeg = with_scans(scans, 1000, 1000)
        size = len(tiff(*[(PRIVATE, LONG, 1, 0)] * 3))
        starts = struct.pack(f"<{strips}I", *(size + 8 * strips + at * len(jpeg) for at in range(strips)))
        sizes = struct.pack(f"<{strips}I", *[len(jpeg)] * strips)
        values = (size, size + 4 * strips) if strips > 1 else (size + 8, len(jpeg))
        tags = [(COMPRESSION, SHORT, 1, 7), (STRIPS, LONG, strips, values[0]), (STRIP_SIZES, LONG, strips, values[1])]
        return tiff(*tags, rest=starts + sizes + jpeg * strips)

    check_structure(image(30), MAX_PIXELS)
    check_structure(image(3, strips=10), MAX_PIXELS)
    for scans, strips in ((31, 1), (4, 10)):
        with pytest.raises(TooLarge, match="scans"):
            check_structure(image(scans, strips), MAX_PIXELS)


def test_jpegs_that_overlap_are_refused():
    """Each would be searched to the end of the file."""
    size = len(tiff(*[(PRIVATE, LONG, 1, 0)] * 3))
    starts, sizes = struct.pack("<1000I", *range(size, size + 1000)), struct.pack("<1000I", *[2**31] * 1000)
    tags = [(COMPRESSION, SHORT, 1, 7), (STRIPS, LONG, 1000, size), (STRIP_SIZES, LONG, 1000, size + 4000)]
    with pytest.raises(TooLarge, match="more than 4 times its own size in the JPEGs of a TIFF"):
        check_structure(tiff(*tags, rest=starts + sizes + bytes(20_000)), MAX_PIXELS)


def test_many_pages_are_accepted():
    check_structure(encode(gradient(), "TIFF", more=[gradient()] * 300), MAX_PIXELS)


def test_exif_data_is_checked_like_a_directory():
    data = tiff((PRIVATE, RATIONAL, 500_000, 8), rest=bytes(500_000))
    for prefix in (b"", b"Exif\0\0", b"Exif\0\0Exif\0\0"):
        check_exif(prefix + tiff())
        with pytest.raises(TooLarge, match="numbers"):
            check_exif(prefix + data)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "jpeg"])
def test_a_tiff_that_ends_early_raises_nothing(compression):
    data = encode(gradient(), "TIFF", compression=compression)
    for length in range(4, len(data)):
        check_structure(data[:length], MAX_PIXELS)
