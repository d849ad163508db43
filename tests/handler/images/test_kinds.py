"""A valid file that is not served is refused with 415 and its name; 422 is for damage."""

import gzip
import io
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

from tests.support.images import encode, gradient, png_chunk
from vinegrape_handler.errors import BrokenImage, RequestError, UnsupportedFormat
from vinegrape_handler.images.decode import Limits, decode
from vinegrape_handler.images.kinds import name_kind

LIMITS = Limits(max_bytes=1_000_000, max_pixels=1_000_000)


def refusal(data) -> RequestError:
    with pytest.raises((UnsupportedFormat, BrokenImage)) as caught:
        decode(data, LIMITS, 64)
    return caught.value


def box(kind: bytes, content: bytes) -> bytes:
    """One box of ISO/IEC 14496-12."""
    return struct.pack(">I", 8 + len(content)) + kind + content


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("leaf.png", encode(gradient(), "PNG"))
    return out.getvalue()


OTHERS = {
    "a GIF image": encode(gradient(), "GIF"),
    "a Windows icon": encode(gradient(32, 32), "ICO"),
    "an Apple icon": encode(gradient(32, 32), "ICNS"),
    "a PNM image": encode(gradient(), "PPM"),
    "a JPEG 2000 image": encode(gradient(), "JPEG2000"),
    "an AVIF image": box(b"ftyp", b"avif\0\0\0\0avifmif1miaf") + bytes(100),
    "an HEIC image": box(b"ftyp", b"heic\0\0\0\0mif1heic") + bytes(100),
    "a JPEG XL image": b"\xff\x0a" + bytes(100),
    "a Photoshop document": b"8BPS\0\1" + bytes(100),
    "an MP4 video": box(b"ftyp", b"isom\0\0\2\0isomiso2avc1mp41") + bytes(100),
    "a QuickTime video": box(b"ftyp", b"qt  \0\0\0\0qt  ") + bytes(100),
    "a WebM or Matroska video": b"\x1a\x45\xdf\xa3" + bytes(100),
    "an AVI video": b"RIFF\x64\0\0\0AVI LIST" + bytes(100),
    "a WAV file": b"RIFF\x24\0\0\0WAVEfmt ",
    "a PDF document": encode(gradient(), "PDF"),
    "a PostScript document": encode(gradient(), "EPS"),
    "a ZIP archive": zipped(),
    "a gzip file": gzip.compress(encode(gradient(), "PNG")),
    "a DICOM image": bytes(128) + b"DICM" + bytes(100),
    "an SVG image": b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "an HTML page": b"\n<!doctype html><html><body>No.</body></html>",
    "an XML document": b'<?xml version="1.0"?><leaf/>',
    "text": "\ufeffA vine leaf: größer".encode(),
    "a camera raw image": b"FUJIFILMCCD-RAW 0201" + bytes(100),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_file_of_another_kind_is_refused_with_its_name(kind):
    error = refusal(OTHERS[kind])
    assert error.status == 415
    assert str(error).startswith(f"This is {kind}")
    assert str(error).endswith("Send PNG, JPEG, WEBP, BMP or TIFF.")


@pytest.mark.parametrize("brands", [b"mif1\0\0\0\0mif1heic", b"msf1\0\0\0\0msf1hevcheix", b"heix\0\0\0\0mif1"])
def test_heic_is_recognised_by_any_of_its_brands(brands):
    assert name_kind(box(b"ftyp", brands)) == "an HEIC image"


@pytest.mark.parametrize("data", [b" ", bytes(1000), b"RIFF\x24\0\0\0????", b"\x80\x81\x82", bytes(range(256))])
def test_bytes_of_an_unknown_kind_are_refused_without_a_name(data):
    error = refusal(data)
    assert error.status == 415
    assert str(error) == "The bytes are not an image in a supported format (PNG, JPEG, WEBP, BMP, TIFF)."


def test_a_text_that_is_cut_within_a_character_is_text():
    assert name_kind("é".encode() * 2000) == "text"
    assert name_kind(b"a" + "é".encode() * 2000) == "text"


# Kinds of JPEG


def frame_header(marker: int, bits: int = 8, channels: int = 3) -> bytes:
    """A JPEG up to its frame header: ITU-T T.81, B.2.2."""
    components = b"".join(bytes([number + 1, 0x11, 0]) for number in range(channels))
    content = struct.pack(">BHHB", bits, 16, 16, channels) + components
    return b"\xff\xd8\xff\xfe\0\4hi\xff" + bytes([marker]) + struct.pack(">H", 2 + len(content)) + content + bytes(200)


@pytest.mark.parametrize(
    ("marker", "bits", "channels", "kind"),
    [
        (0xC3, 8, 3, "a lossless JPEG"),
        (0xC3, 16, 1, "a lossless JPEG"),
        (0xC9, 8, 3, "an arithmetic-coded JPEG"),
        (0xCA, 8, 3, "an arithmetic-coded JPEG"),
        (0xC5, 8, 3, "a hierarchical JPEG"),
        (0xF7, 8, 3, "a JPEG-LS"),
        (0xC1, 12, 3, "a JPEG of 12 bits"),
        (0xC2, 12, 1, "a JPEG of 12 bits"),
        (0xC0, 8, 2, "a JPEG of 2 channels"),
    ],
)
def test_a_jpeg_of_another_process_is_refused_with_its_name(marker, bits, channels, kind):
    error = refusal(frame_header(marker, bits, channels))
    assert error.status == 415
    assert str(error).startswith(f"This is {kind}.")


@pytest.mark.parametrize("marker", [0xC0, 0xC1, 0xC2])
def test_a_damaged_jpeg_of_a_supported_process_is_broken(marker):
    assert refusal(frame_header(marker)).status == 422


# Kinds of BMP


def bmp(bits: int, compression: int, pixels: bytes, masks: bytes = b"", header_size: int = 40) -> bytes:
    header = struct.pack("<IiiHHIIiiII", header_size, 4, 4, 1, bits, compression, len(pixels), 0, 0, 0, 0) + masks
    return b"BM" + struct.pack("<IHHI", 14 + len(header) + len(pixels), 0, 0, 14 + len(header)) + header + pixels


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (bmp(0, 4, encode(gradient(4, 4), "JPEG")), "a BMP that contains a JPEG"),
        (bmp(0, 5, encode(gradient(4, 4), "PNG")), "a BMP that contains a PNG"),
        (bmp(64, 0, bytes(8 * 16)), "a BMP with 64 bits per pixel"),
        (bmp(2, 0, bytes(64)), "a BMP with 2 bits per pixel"),
        (bmp(32, 3, bytes(64), struct.pack("<III", 0x3FF00000, 0xFFC00, 0x3FF)), "a BMP with unusual bit masks"),
    ],
)
def test_a_bmp_of_another_kind_is_refused_with_its_name(data, kind):
    error = refusal(data)
    assert error.status == 415
    assert str(error).startswith(f"This is {kind}.")


def test_a_damaged_bmp_is_broken():
    assert refusal(bmp(24, 0, bytes(10))).status == 422
    assert refusal(bmp(24, 99, bytes(64))).status == 422
    assert refusal(bmp(7, 0, bytes(64))).status == 422


def test_a_png_for_ios_is_refused_with_its_name():
    data = encode(gradient(), "PNG")
    error = refusal(data[:8] + png_chunk(b"CgBI", bytes(4)) + data[8:])
    assert error.status == 415
    assert "CgBI" in str(error)


def test_a_supported_image_is_of_no_other_kind():
    for format_ in ("PNG", "JPEG", "WEBP", "BMP", "TIFF"):
        assert name_kind(encode(gradient(), format_)) == ""
    assert name_kind(np.random.default_rng(0).bytes(1000)) == ""
    assert Image.open(io.BytesIO(OTHERS["a GIF image"])).format == "GIF"
