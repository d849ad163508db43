"""Open BMP files, correct what Pillow reads wrong, and name the kinds that it cannot read."""

from __future__ import annotations

import io

from PIL import Image, ImageFile

SIGNATURE = b"BM"

_HEADER_SIZES = (12, 40, 52, 56, 64, 108, 124)
_CORE_HEADER = 12
_MISREAD = (("1", 4), ("1", 8), ("L", 4))  # Pillow's mode, and bits per pixel
_UNKNOWN_BITS = (2, 48, 64)  # Windows CE, GDI+
_BIT_FIELDS = 3
# Microsoft's biCompression; OS/2 gives 3 and 4 other meanings, with a header of 64 bytes
_COMPRESSIONS = {
    4: "a BMP that contains a JPEG",
    5: "a BMP that contains a PNG",
    6: "a BMP with bit masks for alpha",
    11: "a CMYK BMP",
    12: "a CMYK BMP",
    13: "a CMYK BMP",
}


def open_bmp(data: bytes) -> ImageFile.ImageFile:
    """Open a BMP without decoding it.

    Raises:
        Exception: of many kinds, from Pillow.
    """
    image = Image.open(io.BytesIO(data), formats=("BMP",))
    header_size = int.from_bytes(data[14:18], "little")
    bits = data[24] if header_size == _CORE_HEADER else data[28]
    if (image.mode, bits) in _MISREAD:
        # If a palette has shades of grey only, Pillow assumes 1 or 8 bits per pixel, whatever the header says. So one
        # entry gets one level of blue more or less
        at = 14 + header_size
        image = Image.open(io.BytesIO(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]), formats=("BMP",))
    return image


def unsupported_kind(data: bytes) -> str:
    """Return what kind of BMP this is if it is one that Pillow does not decode; empty if it is damaged or another."""
    header_size = int.from_bytes(data[14:18], "little")
    if header_size == _CORE_HEADER or header_size not in _HEADER_SIZES or len(data) < 14 + header_size:
        return ""
    bits, compression = int.from_bytes(data[28:30], "little"), int.from_bytes(data[30:34], "little")
    if compression in _COMPRESSIONS:
        return _COMPRESSIONS[compression]
    if bits in _UNKNOWN_BITS:
        return f"a BMP with {bits} bits per pixel"
    if compression == _BIT_FIELDS and bits in (16, 32):
        return "a BMP with unusual bit masks"
    return ""
