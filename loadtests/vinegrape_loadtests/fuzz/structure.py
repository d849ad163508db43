"""Where the parts and the numbers of an image file are, also of one that is damaged."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Literal

_PNG = b"\x89PNG\r\n\x1a\n"
_SOF_MARKERS = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xDA)})  # JPEG markers
_BMP_NUMBERS = ((2, 4), (10, 4), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2), (30, 4), (34, 4), (46, 4))
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
_MOST_PARTS = 500


@dataclass(frozen=True)
class Number:
    """A number in a file.

    Attributes:
        at: its first byte.
        size: its bytes.
        order: of its bytes.
        is_side: whether it is the width or the height of the image.
    """

    at: int
    size: int
    order: Literal["big", "little"]
    is_side: bool = False


@dataclass(frozen=True)
class Structure:
    """The structure of a file, as far as it can be read.

    Attributes:
        parts: chunks, segments, or entries of a directory; without the signature.
        numbers: sizes, lengths, counts and offsets.
    """

    parts: tuple[slice, ...] = ()
    numbers: tuple[Number, ...] = ()


def read_structure(data: bytes) -> Structure:
    """Return the structure of a PNG, JPEG, WebP, BMP or TIFF file; an empty one for other data."""
    if data.startswith(_PNG):
        return _read_png(data)
    if data.startswith(b"\xff\xd8"):
        return _read_jpeg(data)
    if data.startswith(b"RIFF"):
        return _read_webp(data)
    if data.startswith(b"BM"):
        return _read_bmp(data)
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _read_tiff(data)
    return Structure()


def signature_bytes(data: bytes) -> int:
    """Return how many bytes at the start of a file tell its format."""
    sizes = {b"\x89": 8, b"\xff": 3, b"R": 12, b"B": 2}
    return sizes.get(data[:1], 4)


def mend_checksums(data: bytes) -> bytes:
    """Return a PNG file with right checksums, so that changes get past them; other data as it is."""
    if not data.startswith(_PNG):
        return data
    mended = bytearray(data)
    for part in _read_png(data).parts:
        checksum = zlib.crc32(mended[part.start + 4 : part.stop - 4])
        mended[part.stop - 4 : part.stop] = struct.pack(">I", checksum)
    return bytes(mended)


def with_number(data: bytes, number: Number, value: int) -> bytes:
    """Return data with another number; only the lower bytes of the value are used."""
    changed = bytearray(data)
    changed[number.at : number.at + number.size] = (value % (1 << 8 * number.size)).to_bytes(number.size, number.order)
    return bytes(changed)


def _read_png(data: bytes) -> Structure:
    parts: list[slice] = []
    numbers: list[Number] = []
    at = 8
    while at + 12 <= len(data) and len(parts) < _MOST_PARTS:
        numbers.append(Number(at, 4, "big"))
        if data[at + 4 : at + 8] == b"IHDR":
            numbers += [Number(at + 8, 4, "big", is_side=True), Number(at + 12, 4, "big", is_side=True)]
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            break
        parts.append(slice(at, end))
        at = end
    return Structure(tuple(parts), tuple(numbers))


def _read_jpeg(data: bytes) -> Structure:
    parts: list[slice] = []
    numbers: list[Number] = []
    at = 2
    while at + 4 <= len(data) and len(parts) < _MOST_PARTS:
        if data[at] != 0xFF or data[at + 1] in (0, 0xFF):  # entropy-coded data, or fill bytes
            at += 1
            continue
        marker = data[at + 1]
        if marker in _WITHOUT_LENGTH:
            at += 2
            continue
        numbers.append(Number(at + 2, 2, "big"))
        if marker in _SOF_MARKERS and at + 9 <= len(data):
            numbers += [Number(at + 5, 2, "big", is_side=True), Number(at + 7, 2, "big", is_side=True)]
        end = min(len(data), at + 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big")))
        parts.append(slice(at, end))
        at = end
    return Structure(tuple(parts), tuple(numbers))


def _read_webp(data: bytes) -> Structure:
    parts: list[slice] = []
    at = 12
    numbers = [Number(4, 4, "little")]
    while at + 8 <= len(data) and len(parts) < _MOST_PARTS:
        numbers.append(Number(at + 4, 4, "little"))
        match data[at : at + 4]:
            case b"VP8X":  # the size is also in the image itself
                numbers += [Number(at + 12, 3, "little"), Number(at + 15, 3, "little")]
            case b"VP8 ":
                numbers += [Number(at + 14, 2, "little", is_side=True), Number(at + 16, 2, "little", is_side=True)]
            case b"VP8L":
                numbers.append(Number(at + 9, 4, "little", is_side=True))
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        end = at + 8 + size + size % 2
        if end > len(data):
            break
        parts.append(slice(at, end))
        at += 24 if data[at : at + 4] == b"ANMF" else end - at  # a frame contains chunks, too
    return Structure(tuple(parts), tuple(numbers))


def _read_bmp(data: bytes) -> Structure:
    numbers = [Number(at, size, "little", at in (18, 22)) for at, size in _BMP_NUMBERS if at + size <= len(data)]
    return Structure((slice(0, 14), slice(14, 54), slice(54, len(data))), tuple(numbers))


def _read_tiff(data: bytes) -> Structure:
    order: Literal["big", "little"] = "big" if data.startswith(b"MM") else "little"
    big = b"+" in data[2:4]
    count_size, entry_size, word = (8, 20, 8) if big else (2, 12, 4)
    first = Number(8 if big else 4, word, order)
    parts: list[slice] = []
    numbers = [first]
    at = int.from_bytes(data[first.at : first.at + word], order)
    entries = int.from_bytes(data[at : at + count_size], order)
    if at + count_size <= len(data):
        numbers.append(Number(at, count_size, order))
    at += count_size
    for start in range(at, at + entry_size * min(entries, _MOST_PARTS), entry_size):
        if start + entry_size > len(data):
            break
        parts.append(slice(start, start + entry_size))
        tag = int.from_bytes(data[start : start + 2], order)
        is_side = tag in (_TIFF_WIDTH, _TIFF_HEIGHT)
        kind = int.from_bytes(data[start + 2 : start + 4], order)
        size = 2 if kind == 3 else word
        numbers += [Number(start + 2, 2, order), Number(start + 4, word, order)]
        numbers.append(Number(start + 4 + word, size, order, is_side))
    return Structure(tuple(parts), tuple(numbers))
