"""JPEGs that are small but take long: they are written segment by segment."""

import io
import struct
from random import Random

import pytest
from PIL import Image

from tests.support.images import encode, gradient
from vinegrape_handler.errors import TooLarge
from vinegrape_handler.images.structure import check_structure

MAX_PIXELS = 1_000_000
SCAN, COMMENT, APP1 = b"\xda", b"\xfe", b"\xe1"


def segment(kind: bytes, content: bytes = b"") -> bytes:
    return b"\xff" + kind + struct.pack(">H", 2 + len(content)) + content


def with_segments(*segments: bytes) -> bytes:
    """A JPEG with these segments after its start marker."""
    data = encode(gradient(), "JPEG")
    return data[:2] + b"".join(segments) + data[2:]


def with_scans(scans: int, width: int, height: int, kind: bytes = b"\xc2") -> bytes:
    """A JPEG with a frame header (0xC2: progressive) and empty scans of the first of its three components."""
    frame = struct.pack(">BHHB", 8, height, width, 3) + bytes([1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0])
    scan = segment(SCAN, bytes([1, 1, 0, 0, 0, 0])) + b"\x55\xff\x00\xff\xd0\x55"
    return b"\xff\xd8" + segment(kind, frame) + scan * scans + b"\xff\xd9"


def test_as_many_scans_as_their_cost_allows_are_accepted():
    check_structure(with_scans(30, 1000, 1000), MAX_PIXELS)
    with pytest.raises(TooLarge, match="more than 30 scans, which is the maximum for 1000000 pixels"):
        check_structure(with_scans(31, 1000, 1000), MAX_PIXELS)


def test_a_smaller_jpeg_may_have_more_scans():
    check_structure(with_scans(120, 500, 500), MAX_PIXELS)
    with pytest.raises(TooLarge, match="120 scans"):
        check_structure(with_scans(121, 500, 500), MAX_PIXELS)


def test_a_jpeg_without_its_end_marker_may_have_a_quarter_of_the_scans():
    """It is decoded several times, to see whether pixels are missing."""
    check_structure(with_scans(7, 1000, 1000)[:-2], MAX_PIXELS)
    check_structure(with_scans(30, 500, 500)[:-2], MAX_PIXELS)
    with pytest.raises(TooLarge, match="more than 7 scans, which is the maximum for 1000000 pixels without an end"):
        check_structure(with_scans(8, 1000, 1000)[:-2], MAX_PIXELS)


@pytest.mark.parametrize("kind", [b"\xc0", b"\xc1", b"\xc2", b"\xca"])
def test_scans_are_counted_in_every_process_that_has_several(kind):
    with pytest.raises(TooLarge, match="scans"):
        check_structure(with_scans(31, 1000, 1000, kind), MAX_PIXELS)


def test_scans_behind_segments_between_scans_are_counted():
    comment = segment(COMMENT, b"\xff\xd9")  # an end marker inside a segment ends nothing
    data = with_scans(31, 1000, 1000).replace(segment(SCAN)[:2], comment + segment(SCAN)[:2])
    with pytest.raises(TooLarge, match="scans"):
        check_structure(data, MAX_PIXELS)


def test_what_looks_like_scans_is_not_counted_in_metadata_and_after_the_end():
    """A thumbnail is in the metadata; the second image of an MPO, or a video, follows the end marker."""
    scans = with_scans(50, 1000, 1000)[2:]
    check_structure(with_segments(segment(APP1, scans)), MAX_PIXELS)
    check_structure(encode(gradient(), "JPEG", progressive=True) + scans, MAX_PIXELS)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_the_scans_of_libjpeg_are_accepted_in_the_largest_image(mode):
    data = encode(gradient(1000, 1000).convert(mode), "JPEG", progressive=True)
    assert data.count(b"\xff\xda") >= 6
    check_structure(data, MAX_PIXELS)


@pytest.mark.parametrize("content", [b"", b"a", bytes(60_000)])
@pytest.mark.parametrize("kind", [b"\xe0", b"\xe1", b"\xef", b"\xfe", b"\xdb"])
def test_many_segments_are_refused(kind, content):
    check_structure(with_segments(*[segment(kind, content)] * 900), MAX_PIXELS)
    with pytest.raises(TooLarge, match="more than 1000 JPEG segments"):
        check_structure(with_segments(*[segment(kind, content)] * 1000), MAX_PIXELS)


@pytest.mark.parametrize("marker", [b"\xd0", b"\xd8", b"\xd9", b"\xc8", b"\xf0"])
def test_markers_that_pillow_reads_as_segments_without_a_length_are_counted(marker):
    with pytest.raises(TooLarge, match="more than 1000 JPEG segments"):
        check_structure(with_segments((b"\xff" + marker) * 1001), MAX_PIXELS)


def test_many_exif_segments_are_refused():
    exif = segment(APP1, b"Exif\0\0" + bytes(60_000))
    check_structure(with_segments(*[exif] * 16), MAX_PIXELS)
    with pytest.raises(TooLarge, match="more than 16 JPEG segments of EXIF data"):
        check_structure(with_segments(*[exif] * 17), MAX_PIXELS)


def test_a_megabyte_of_xmp_or_colour_profile_is_accepted():
    for kind, name in ((APP1, b"http://ns.adobe.com/xmp/extension/\0"), (b"\xe2", b"ICC_PROFILE\0")):
        check_structure(with_segments(*[segment(kind, name + bytes(65_000))] * 20), MAX_PIXELS)


@pytest.mark.parametrize("filling", [b"\xff", b"\0", b"\xff\0"])
def test_many_bytes_between_segments_are_refused(filling):
    check_structure(with_segments(segment(COMMENT), filling * 1000), MAX_PIXELS)
    with pytest.raises(TooLarge, match="more than 65536 bytes between"):
        check_structure(with_segments(segment(COMMENT), filling * 70_000), MAX_PIXELS)


def test_restart_markers_are_not_counted():
    data = encode(gradient(400, 400), "JPEG", progressive=True, restart_marker_blocks=1)
    assert sum(data.count(bytes([0xFF, 0xD0 + number])) for number in range(8)) > 1000
    check_structure(data, MAX_PIXELS)


def test_a_scan_with_all_components_ends_the_search():
    """libjpeg reads no further scan; a photo's compressed data is not searched."""
    data = encode(gradient(), "JPEG")
    assert len(Image.open(io.BytesIO(data)).layer) == 3
    check_structure(data[:-2] + (b"\xff\xda\0\2" * 100_000) + b"\xff\xd9", MAX_PIXELS)


def test_random_bytes_after_the_start_raise_nothing_else():
    random = Random(0)
    for _ in range(300):
        check_structure(b"\xff\xd8\xff" + random.randbytes(random.randrange(300)), MAX_PIXELS)
