"""Metadata that a viewer ignores has no effect; the image beside it is decoded."""

import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.support.images import corners, encode, gradient, png_chunk
from vinegrape_handler.errors import BrokenImage
from vinegrape_handler.images import jpeg, png
from vinegrape_handler.images.decode import Limits, decode

LIMITS = Limits(max_bytes=10_000_000, max_pixels=1_000_000)
EXIF_ROTATED = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x03\0\0\0\0\0\0\0"  # orientation 3: upside down
XMP_ROTATED = b'<x:xmpmeta><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'


def pixels(data) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(decode(data, LIMITS, 64))


def wrong_checksum(chunk: bytes) -> bytes:
    return chunk[:-4] + bytes(4)


def png_with(*chunks: bytes, before_end: bool = False) -> bytes:
    """The gradient as PNG, with chunks after its header or before its end."""
    data = encode(gradient(), "PNG")
    at = len(data) - 12 if before_end else 33
    return data[:at] + b"".join(chunks) + data[at:]


def itxt(keyword: bytes, text: bytes, compressed: bool = False) -> bytes:
    return png_chunk(
        b"iTXt", keyword + b"\0" + bytes([compressed, 0]) + b"\0\0" + (zlib.compress(text) if compressed else text)
    )


MEGABYTES = b"a" * 3_000_000
PNG_CHUNKS = {
    "a compressed XMP of 3 MB": itxt(b"XML:com.adobe.xmp", MEGABYTES, compressed=True),
    "an XMP of 3 MB": itxt(b"XML:com.adobe.xmp", MEGABYTES),
    "a compressed text of 3 MB": png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(MEGABYTES)),
    "a compressed text of 50 MB": png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(50_000_000))),
    "a compressed XMP of 50 MB": itxt(b"XML:com.adobe.xmp", bytes(50_000_000), compressed=True),
    "a text of an unknown compression": png_chunk(b"zTXt", b"Comment\0\x07abc"),
    "a text without a keyword": png_chunk(b"tEXt", b""),
    "a profile of 3 MB": png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(MEGABYTES)),
    "a profile of 50 MB": png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(50_000_000))),
    "a profile of an unknown compression": png_chunk(b"iCCP", b"icc\0\x01" + zlib.compress(b"x")),
    "a profile that is not compressed": png_chunk(b"iCCP", b"icc\0\0not compressed"),
    "a profile without a name": png_chunk(b"iCCP", b"icc"),
    "an empty profile": png_chunk(b"iCCP", b""),
    "a wrong checksum of a text": wrong_checksum(png_chunk(b"tEXt", b"a\0b")),
    "a wrong checksum of a profile": wrong_checksum(png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(b"x"))),
    "a wrong checksum of an unknown chunk": wrong_checksum(png_chunk(b"abCd", b"hello")),
    "an unknown chunk": png_chunk(b"abCd", b"hello"),
    "a pHYs too short": png_chunk(b"pHYs", bytes(3)),
    "a tIME too short": png_chunk(b"tIME", bytes(1)),
    "a gAMA too short": png_chunk(b"gAMA", bytes(1)),
    "a gAMA of 0": png_chunk(b"gAMA", bytes(4)),
    "a cHRM too short": png_chunk(b"cHRM", bytes(31)),
    "a cHRM of zeros": png_chunk(b"cHRM", bytes(32)),
    "a cHRM of equal primaries": png_chunk(b"cHRM", struct.pack(">8I", *[31270, 32900] * 4)),
    "an sRGB too short": png_chunk(b"sRGB", b""),
    "a cICP too short": png_chunk(b"cICP", b"\x01"),
    "a cICP of unknown numbers": png_chunk(b"cICP", bytes([99, 99, 0, 1])),
    "a tRNS too short": png_chunk(b"tRNS", bytes(5)),
    "a tRNS too long": png_chunk(b"tRNS", bytes(7)),
    "a damaged eXIf": png_chunk(b"eXIf", b"II*\0\xff\xff\xff\xff"),
    "an empty eXIf": png_chunk(b"eXIf", b""),
    "an animation control too short": png_chunk(b"acTL", bytes(3)),
    "an animation of 0 frames": png_chunk(b"acTL", bytes(8)),
    "a frame outside the image": png_chunk(b"acTL", struct.pack(">II", 2, 0))
    + png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 999, 999, 0, 0, 1, 1, 0, 0)),
    "frames out of sequence": png_chunk(b"acTL", struct.pack(">II", 2, 0))
    + png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", 7, 37, 23, 0, 0, 1, 1, 0, 0)),
}


@pytest.mark.parametrize("name", PNG_CHUNKS)
@pytest.mark.parametrize("before_end", [False, True], ids=["first", "last"])
def test_a_chunk_beside_the_pixels_of_a_png_is_ignored(name, before_end):
    assert np.array_equal(pixels(png_with(PNG_CHUNKS[name], before_end=before_end)), gradient())


def test_the_metadata_of_a_png_is_left_out_without_changing_the_rest():
    data = encode(gradient(), "PNG")
    assert png.read_metadata(data) == (data, {})
    assert png.read_metadata(data)[0] is data
    assert png.read_metadata(png_with(*PNG_CHUNKS.values()))[0] == data


def test_a_wrong_checksum_of_a_critical_chunk_is_broken():
    data = encode(gradient().quantize(4), "PNG")
    for kind in (b"IHDR", b"PLTE"):
        at = data.index(kind)
        end = at + 4 + int.from_bytes(data[at - 4 : at], "big")
        with pytest.raises(BrokenImage):
            pixels(data[:end] + bytes(4) + data[end + 4 :])


def test_only_the_first_of_two_equal_chunks_counts():
    upside_down, upright = (
        png_chunk(b"eXIf", EXIF_ROTATED),
        png_chunk(b"eXIf", EXIF_ROTATED.replace(b"\x03\0\0\0\0", b"\x01\0\0\0\0")),
    )
    assert np.array_equal(pixels(png_with(upside_down, upright)), np.asarray(gradient())[::-1, ::-1])
    assert np.array_equal(pixels(png_with(upright, upside_down)), gradient())


@pytest.mark.parametrize("before_end", [False, True], ids=["first", "last"])
@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"eXIf", EXIF_ROTATED),
        itxt(b"XML:com.adobe.xmp", XMP_ROTATED),
        itxt(b"XML:com.adobe.xmp", XMP_ROTATED, compressed=True),
    ],
    ids=["eXIf", "XMP", "compressed XMP"],
)
def test_the_orientation_of_a_png_is_applied_beside_damaged_metadata(chunk, before_end):
    data = png_with(PNG_CHUNKS["a pHYs too short"], chunk, before_end=before_end)
    assert np.array_equal(pixels(data), np.asarray(gradient())[::-1, ::-1])


# JPEG


def segment(marker: int, content: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content


def jpeg_with(*segments: bytes) -> bytes:
    """Four quarters as JPEG, with segments in the place of its JFIF header."""
    data = encode(Image.fromarray(corners(64, 64)), "JPEG", quality=95, subsampling=0)
    return data[:2] + b"".join(segments) + data[20:]


PHOTOSHOP = b"Photoshop 3.0\0"
MPF = b"MPF\0II*\0\x08\0\0\0"
JPEG_SEGMENTS = {
    "a short JFIF": segment(0xE0, b"JFIF\0"),
    "an empty APP1": segment(0xE1, b""),
    "an Exif of 5 bytes": segment(0xE1, b"Exif\0\0II*\0\x08"),
    "an Exif that points beyond its end": segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\x7f"),
    "an Exif of noise": segment(0xE1, b"Exif\0\0" + bytes(range(256))),
    "an Exif with a resolution of no values": segment(
        0xE1, b"Exif\0\0II*\0\x08\0\0\0\x02\0\x1a\x01\x05\0\0\0\0\0\0\0\0\0\x28\x01\x03\0\x01\0\0\0\x02\0\0\0\0\0\0\0"
    ),
    "a short Adobe": segment(0xEE, b"Adobe"),
    "a Photoshop block that ends early": segment(0xED, PHOTOSHOP + b"8BIM\x04\x04"),
    "a Photoshop block of too many bytes": segment(0xED, PHOTOSHOP + b"8BIM\x03\xed\0\0\x7f\xff\xff\xff\0\1"),
    "an MPF without a directory": segment(0xE2, b"MPF\0II*\0\xff\xff\xff\x7f"),
    "an MPF without entries": segment(0xE2, MPF + b"\x01\0\x01\xb0\x04\0\x01\0\0\0\x02\0\0\0\0\0\0\0"),
    "an MPF with short entries": segment(
        0xE2, MPF + b"\x02\0\x01\xb0\x04\0\x01\0\0\0\x02\0\0\0\x02\xb0\x07\0\x04\0\0\0abcd\0\0\0\0"
    ),
    "an ICC profile of a missing part": segment(0xE2, b"ICC_PROFILE\0\x01\x02" + bytes(200)),
    "an ICC profile without numbers": segment(0xE2, b"ICC_PROFILE\0"),
    "an XMP of 60 KB": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"a" * 60_000),
    "a comment": segment(0xFE, b"hello"),
    "a FlashPix header": segment(0xE2, b"FPXR\0"),
}


@pytest.mark.parametrize("name", JPEG_SEGMENTS)
def test_a_segment_beside_the_pixels_of_a_jpeg_is_ignored(name):
    found = pixels(jpeg_with(JPEG_SEGMENTS[name]))
    assert np.abs(found.astype(int) - corners(64, 64)).max() <= 8


@pytest.mark.parametrize("name", ["a short Adobe", "a short JFIF", "an Exif with a resolution of no values"])
def test_the_orientation_of_a_jpeg_is_applied_beside_damaged_metadata(name):
    found = pixels(jpeg_with(segment(0xE1, b"Exif\0\0" + EXIF_ROTATED), JPEG_SEGMENTS[name]))
    assert np.abs(found.astype(int) - corners(64, 64)[::-1, ::-1]).max() <= 8


def test_without_metadata_a_jpeg_keeps_its_colour_model():
    """The four channels of a CMYK JPEG by Adobe are inverted; the segment that says so is kept."""
    data = encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)
    damaged = data[:2] + JPEG_SEGMENTS["a short JFIF"] + JPEG_SEGMENTS["a short Adobe"] + data[2:]
    assert np.array_equal(pixels(damaged), pixels(data))
    kept, info = jpeg.without_metadata(damaged)
    assert kept.count(b"Adobe") == 1
    assert b"JFIF" not in kept
    assert info == {}


# WebP and TIFF


def webp_with(*chunks: tuple[bytes, bytes], flags: int) -> bytes:
    """The gradient as an extended WebP (RFC 9649, 2.7)."""
    simple = encode(gradient(), "WEBP", lossless=True)
    parts = [(b"VP8X", bytes([flags, 0, 0, 0]) + (36).to_bytes(3, "little") + (22).to_bytes(3, "little"))]
    body = b"".join(kind + struct.pack("<I", len(c)) + c + bytes(len(c) % 2) for kind, c in parts)
    body += simple[12:] + b"".join(kind + struct.pack("<I", len(c)) + c + bytes(len(c) % 2) for kind, c in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


@pytest.mark.parametrize(
    ("chunks", "flags"),
    [
        ([(b"EXIF", b"II*\0\xff\xff\xff\xff")], 8),
        ([(b"EXIF", b"")], 8),
        ([(b"EXIF", bytes(range(100)))], 8),
        ([(b"XMP ", MEGABYTES)], 4),
        ([(b"ABCD", b"unknown")], 0),
        ([], 8 | 4),
    ],
    ids=["Exif beyond its end", "empty Exif", "Exif of noise", "XMP of 3 MB", "unknown chunk", "flags without chunks"],
)
def test_a_chunk_beside_the_pixels_of_a_webp_is_ignored(chunks, flags):
    assert np.array_equal(pixels(webp_with(*chunks, flags=flags)), gradient())


TIFF_TAGS = {  # number, type, count, value
    "Exif beyond the file": (0x8769, 4, 1, 0x7FFFFFFF),
    "Exif in the header": (0x8769, 4, 1, 3),
    "GPS beyond the file": (0x8825, 4, 1, 0x7FFFFFFF),
    "XMP beyond the file": (700, 7, 999999, 8),
    "Photoshop's layers beyond the file": (37724, 7, 77, 99999),
    "a text beyond the file": (269, 2, 10, 99999),
    "an unknown type": (269, 99, 1, 0),
    "a resolution of 0/0": (282, 5, 1, 8),
    "a profile beyond the file": (34675, 7, 500, 99999),
    "a profile that is a number": (34675, 4, 1, 7),
}


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("tag", TIFF_TAGS.values(), ids=TIFF_TAGS)
def test_damaged_metadata_of_a_tiff_is_ignored(tag, compression):
    """The tag takes the place of DocumentName, so that it comes before the strips."""
    data = encode(gradient(), "TIFF", compression=compression, tiffinfo={269: "leaf"})
    at = data.index(struct.pack("<HH", 269, 2))
    assert np.array_equal(pixels(data[:at] + struct.pack("<HHII", *tag) + data[at + 12 :]), gradient())
