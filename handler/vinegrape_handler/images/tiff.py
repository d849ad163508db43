"""Open TIFF files: read right what Pillow would read wrong, and name what it cannot read."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image, ImageFile, ImagePalette
from PIL.TiffImagePlugin import OPEN_INFO

from vinegrape_handler.errors import UnsupportedFormat
from vinegrape_handler.images.kinds import unsupported

SIGNATURES = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")

# Keys of `Image.info`, by which `decode` reads grey values
BITS, WHITE_IS_ZERO = "bits per value", "white is zero"

# Tags and their values: TIFF revision 6.0, and DNG 1.7 for camera raw images
_NEW_SUBFILE_TYPE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_FILL_ORDER, _SAMPLES, _PLANAR, _COLOR_MAP, _SUB_IFDS = 266, 277, 284, 320, 330
_STRIP_BYTES, _SAMPLE_FORMAT, _SUBSAMPLING, _DNG_VERSION = 279, 339, 530, 50706
_USED_TAGS = {254, 256, 257, 258, 259, 262, 266, 277, 279, 284, 320, 330, 339, 530, 50706}
# And what else libtiff needs: orientation, strips, tiles, predictor, extra samples, JPEG, YCbCr; and the ICC profile
_DECODER_TAGS = {256, 257, 258, 259, 262, 266, 277, 284, 320, 339, 530} | {
    *(273, 274, 278, 279, 292, 293, 317, 322, 323, 324, 325, 338, 347, 529, 531, 532, 34675),
    *range(512, 522),
}

_PHOTOMETRICS = {
    0: "grey",
    1: "grey",
    2: "RGB",
    3: "palette",
    4: "mask",
    5: "CMYK",
    6: "YCbCr",
    8: "Lab",
    9: "ICC Lab",
    10: "ITU Lab",
    32844: "LogL",
    32845: "LogLuv",
}
_SENSOR_VALUES = (32803, 34892)  # CFA, LinearRaw
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _YCBCR = 0, 1, 6
_UNCOMPRESSED, _CCITT = 1, (2, 3, 4)
_REDUCED, _REVERSED, _SEPARATE = 1, 2, 2
_OTHER_FORMATS = {2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}
_MAX_BITS = 64
# Codecs that libtiff may lack, and those of other programs
_OTHER_COMPRESSIONS = {
    9: "JBIG",
    10: "JBIG",
    32908: "Pixar",
    32909: "Pixar",
    33003: "JPEG 2000",
    33004: "JPEG 2000",
    33005: "JPEG 2000",
    34661: "JBIG",
    34676: "SGI log",
    34677: "SGI log",
    34712: "JPEG 2000",
    34887: "LERC",
    34892: "lossy JPEG of a camera raw image",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}

_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_MAX_VALUES = 3 << 8  # a palette of 8 bits


class _Entry(NamedTuple):
    """A tag in a directory.

    Attributes:
        at: its position in the file; it has `size` bytes.
        value_at: the position of its `length` values.
        is_in_file: whether the values are in the file.
    """

    at: int
    size: int
    tag: int
    type: int
    length: int
    value_at: int
    is_in_file: bool


@dataclass(frozen=True)
class _Directory:
    """The integer tags of a file's first page.

    Attributes:
        order: of the bytes: "<" or ">".
        values: by tag.
        offsets: by tag, where in the file its value is, if it is a single one.
    """

    order: str
    values: dict[int, tuple[int, ...]]
    offsets: dict[int, int]

    def first(self, tag: int, default: int = 0) -> int:
        return (self.values.get(tag) or (default,))[0]

    def all(self, tag: int, default: int) -> tuple[int, ...]:
        return self.values.get(tag) or (default,)


def open_tiff(data: bytes) -> ImageFile.ImageFile:
    """Open the first page of a TIFF without decoding it.

    `Image.info` has the keys `WHITE_IS_ZERO` (True if the decoded grey values must be inverted) and `BITS` (of a grey
    value of mode I;16), where they apply.

    Raises:
        UnsupportedFormat: Pillow would misread these pixels.
        Exception: of many kinds, from Pillow.
    """
    directory = _read_directory(data)
    kind = _misread_kind(data, directory)
    if kind:
        raise UnsupportedFormat(unsupported(kind))
    inverted = False
    bits = directory.first(_BITS, 1)
    if _PHOTOMETRIC not in directory.values:
        # Pillow assumes that white is 0, except for 16 bits; libtiff does so for CCITT only
        inverted = bits <= 8 and directory.first(_COMPRESSION, _UNCOMPRESSED) not in _CCITT
    elif directory.first(_PHOTOMETRIC) == _WHITE_IS_ZERO and bits in (12, 16) and _PHOTOMETRIC in directory.offsets:
        # Pillow does not invert these values, or refuses them
        at = directory.offsets[_PHOTOMETRIC]
        data = data[:at] + struct.pack(directory.order + "H", _BLACK_IS_ZERO) + data[at + 2 :]
        inverted = True
    try:
        image = Image.open(io.BytesIO(data), formats=("TIFF",))
    except (MemoryError, Image.DecompressionBombError):
        raise
    except Exception:  # metadata may be damaged
        image = Image.open(io.BytesIO(_without_metadata(data)), formats=("TIFF",))
    if image.mode in ("I", "F"):
        raise UnsupportedFormat(unsupported("a TIFF with 32-bit values, whose range is unknown"))
    if inverted:
        image.info[WHITE_IS_ZERO] = True
    if bits == 12:
        image.info[BITS] = bits
    colours = directory.values.get(_COLOR_MAP, ())
    if image.mode in ("P", "PA") and max(colours, default=0) < 256:
        # Some programs write 8 bits in place of 16, as libtiff knows, too; Pillow would decode black
        image.palette = ImagePalette.raw("RGB;L", bytes(colours))
    return image


def unsupported_kind(data: bytes, is_opened: bool) -> str:
    """Return what kind of TIFF this is if it is valid, but not one that Pillow decodes; empty if it is damaged.

    Args:
        data: the file.
        is_opened: Pillow has opened it, so it knows such pixels.
    """
    directory = _read_directory(data)
    compression = directory.first(_COMPRESSION, _UNCOMPRESSED)
    if compression in _OTHER_COMPRESSIONS:
        return f"a TIFF with the compression {_OTHER_COMPRESSIONS[compression]}"
    bits, formats = set(directory.all(_BITS, 1)), set(directory.all(_SAMPLE_FORMAT, 1))
    photometric = directory.first(_PHOTOMETRIC, -1)
    is_valid = (
        photometric in _PHOTOMETRICS and max(bits) <= _MAX_BITS and 0 not in bits and formats <= {1, 2, 3, 4, 5, 6}
    )
    if is_opened or not is_valid or not directory.first(_WIDTH) or not directory.first(_HEIGHT):
        return ""
    byte_order, fill_order = b"II" if directory.order == "<" else b"MM", directory.first(_FILL_ORDER, 1)
    # Pillow knows such pixels, so something else is wrong
    if any(
        (key[0], key[1], key[3]) == (byte_order, photometric, fill_order) and set(key[4]) == bits for key in OPEN_INFO
    ):
        return ""
    numbers = " and ".join(map(str, sorted(bits)))
    prefix = "a" if directory.order == "<" else "a big-endian"
    suffix = " in reversed bits" if fill_order == _REVERSED else ""
    return f"{prefix} TIFF with {numbers}-bit {_PHOTOMETRICS[photometric]} values{suffix}"


def _misread_kind(data: bytes, directory: _Directory) -> str:
    """Return what kind of TIFF this is if Pillow would decode other pixels than a viewer shows."""
    if _DNG_VERSION in directory.values:
        return "a camera raw image (DNG)"
    is_preview = directory.first(_NEW_SUBFILE_TYPE) & _REDUCED and _SUB_IFDS in directory.values
    if data[8:10] == b"CR" or is_preview or directory.first(_PHOTOMETRIC) in _SENSOR_VALUES:
        return "a camera raw image"
    bits, photometric = directory.first(_BITS, 1), directory.first(_PHOTOMETRIC)
    sample_format = directory.first(_SAMPLE_FORMAT, 1)
    if sample_format in _OTHER_FORMATS:
        return f"a TIFF with {_OTHER_FORMATS[sample_format]} values, whose range is unknown"
    if bits == 32:
        return "a TIFF with 32-bit values, whose range is unknown"
    if directory.first(_COMPRESSION, _UNCOMPRESSED) != _UNCOMPRESSED:
        return ""
    row = -(-directory.first(_WIDTH) * directory.first(_SAMPLES, 1) * bits // 8)
    if bits == 12 and sum(directory.all(_STRIP_BYTES, 0)) > row * directory.first(_HEIGHT):
        return "a TIFF with 12-bit values whose rows are padded"  # by how much, no tag says
    planes = directory.first(_PLANAR, 1) == _SEPARATE and directory.first(_SAMPLES, 1) > 1
    reversed_bits = directory.first(_FILL_ORDER, 1) == _REVERSED
    if planes and (bits != 8 or reversed_bits):
        return f"an uncompressed TIFF with {bits}-bit planes"
    if reversed_bits and bits == 8 and photometric == _WHITE_IS_ZERO:
        return "a TIFF with reversed bits"
    if photometric == _YCBCR and set(directory.values.get(_SUBSAMPLING) or (2, 2)) != {1}:
        return "an uncompressed TIFF with subsampled colour"
    return ""


def _read_directory(data: bytes) -> _Directory:
    """Read the integer tags of the first page that tell how its values are stored."""
    directory = _Directory("<" if data.startswith(b"II") else ">", {}, {})
    for entry in _entries(data):
        if entry.tag in _USED_TAGS and entry.type in _INTEGERS and 0 < entry.length <= _MAX_VALUES and entry.is_in_file:
            layout = f"{directory.order}{entry.length}{_INTEGERS[entry.type]}"
            directory.values[entry.tag] = struct.unpack_from(layout, data, entry.value_at)
            if (entry.type, entry.length) == (3, 1):
                directory.offsets[entry.tag] = entry.value_at
    return directory


def _without_metadata(data: bytes) -> bytes:
    """Replace the tags that Pillow needs for nothing, and those whose values are not in the file, by bytes of 0."""
    cleaned = bytearray(data)
    order = "<" if data.startswith(b"II") else ">"
    for entry in _entries(data):
        if entry.tag not in _DECODER_TAGS or not entry.is_in_file:
            single_byte = struct.pack(order + "HHI", entry.tag, 1, 1)
            if entry.size == 20:
                single_byte = struct.pack(order + "HHQ", entry.tag, 1, 1)
            cleaned[entry.at : entry.at + entry.size] = single_byte.ljust(entry.size, b"\0")
    return bytes(cleaned)


def _entries(data: bytes) -> Iterator[_Entry]:
    """Yield the entries of the first directory, as far as it is in the file."""
    order = "<" if data.startswith(b"II") else ">"
    number, width, size = (order + "Q", 8, 20) if data[2:4] in (b"+\0", b"\0+") else (order + "I", 4, 12)
    try:
        (at,) = struct.unpack_from(number, data, 8 if width == 8 else 4)
        (count,) = struct.unpack_from(order + ("Q" if width == 8 else "H"), data, at)
        at += 8 if width == 8 else 2
        for _ in range(count):
            tag, type_ = struct.unpack_from(order + "HH", data, at)
            (values,) = struct.unpack_from(number, data, at + 4)
            value_at, value_bytes = at + size - width, values * _TYPE_BYTES.get(type_, 0)
            if value_bytes > width:
                (value_at,) = struct.unpack_from(number, data, value_at)
            yield _Entry(at, size, tag, type_, values, value_at, value_at + value_bytes <= len(data))
            at += size
    except (struct.error, OverflowError):  # the latter for a position above 2^63
        return
