"""The first directory of a TIFF (TIFF 6.0; BigTIFF), and the directories of its EXIF data."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from vinegrape_handler.images.structure.jpeg import check_jpeg
from vinegrape_handler.images.structure.limits import (
    TIFF_BLOCKS,
    TIFF_JPEG_SIZES,
    TIFF_TAGS,
    TIFF_VALUES,
    check_decoded_bytes,
)

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _CHANNELS = 256, 257, 258, 259, 277
_OFFSETS, _SIZES = (273, 324), (279, 325)  # of strips, of tiles
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_EXIF, _GPS, _INTEROPERABILITY = 34665, 34853, 40965
_JPEG = 7
_HEADER_BYTES = 16  # of a BigTIFF; no classic TIFF is that short
_EXIF_PREFIX = b"Exif\0\0"

# Pillow keeps the values of these types as bytes: BYTE, ASCII, UNDEFINED
_BYTES = (1, 2, 7)
# The types of the numbers that are read here: SHORT, LONG, SSHORT, SLONG, IFD, LONG8, IFD8
_FORMATS = {3: "H", 4: "I", 8: "h", 9: "i", 13: "I", 16: "Q", 18: "Q"}


class _Tag(NamedTuple):
    """An entry of a directory: the number of its values; the values if they fit, else their position in the file."""

    number: int
    type: int
    values: int
    value: bytes


class _Tiff:
    """Reads directories."""

    def __init__(self, data: bytes, is_big: bool) -> None:
        self._data = data
        self._order = "<" if data.startswith(b"II") else ">"
        self._count, self._tag, self._position = (
            struct.Struct(self._order + (big if is_big else classic))
            for classic, big in (("H", "Q"), ("HHI4s", "HHQ8s"), ("I", "Q"))
        )
        self.first = self._position.unpack_from(data, 8 if is_big else 4)[0]

    def directory(self, position: int) -> list[_Tag]:
        """Read the tags of a directory. Those whose values cannot be in the file are left out: decoders ignore them."""
        if not 0 <= position <= len(self._data) - self._count.size:
            return []
        (count,) = self._count.unpack_from(self._data, position)
        start, end = position + self._count.size, len(self._data)
        TIFF_TAGS.check(min(count, (end - start) // self._tag.size))
        tags = (_Tag(*values) for values in self._unpack(self._tag, self._data, start, count))
        return [tag for tag in tags if tag.values <= end]

    def numbers(self, tag: _Tag, most: int = TIFF_VALUES.most) -> Iterable[int]:
        """Return the first numbers of a tag."""
        if tag.type not in _FORMATS:
            return ()
        number = struct.Struct(self._order + _FORMATS[tag.type])
        data, start = tag.value, 0
        if number.size * tag.values > len(tag.value):
            data, start = self._data, self._position.unpack(tag.value)[0]
        return (value for (value,) in self._unpack(number, data, start, min(tag.values, most)))

    @staticmethod
    def _unpack(item: struct.Struct, data: bytes, start: int, count: int) -> Iterable[tuple[Any, ...]]:
        """Unpack up to `count` items; fewer if the data ends."""
        count = max(0, min(count, (len(data) - start) // item.size))
        return item.iter_unpack(data[start : start + count * item.size])


def check_tiff(data: bytes, max_pixels: int) -> float:
    """Check the numbers of tags, values, strips and tiles of a TIFF, the bytes of its pixels, and the JPEGs in it.

    Only the first page is decoded, so the other pages cost nothing.

    Returns:
        The share of the work that one image may cost, 0 to 1.

    Raises:
        TooLarge: a limit is exceeded.
    """
    # Pillow reads a BigTIFF in big-endian order as if it were a classic TIFF, libtiff does not
    readings = {data[2] == 43, 43 in data[2:4]} if len(data) >= _HEADER_BYTES else set()
    return max((_check(_Tiff(data, is_big), data, max_pixels) for is_big in readings), default=0.0)


def check_exif(data: bytes) -> None:
    """Check the numbers of tags and values in EXIF data, with or without the prefix that JPEG gives it.

    Raises:
        TooLarge: a limit is exceeded.
    """
    for _ in range(2):  # Pillow removes two
        data = data.removeprefix(_EXIF_PREFIX)
    if len(data) >= _HEADER_BYTES:
        tiff = _Tiff(data, is_big=data[2:3] == b"+")
        _check_values(tiff, tiff.directory(tiff.first))


def _check(tiff: _Tiff, data: bytes, max_pixels: int) -> float:
    tags = tiff.directory(tiff.first)
    share = _check_values(tiff, tags)
    share = max(share, TIFF_BLOCKS.check(max((tag.values for tag in tags if tag.number in _OFFSETS), default=0)))

    def number(tag: int, default: int) -> int:
        return max(_first_numbers(tiff, tags, tag), default=default)

    width, height = number(_WIDTH, 0), number(_HEIGHT, 0)
    tile_width, tile_height = max(1, number(_TILE_WIDTH, 1)), max(1, number(_TILE_HEIGHT, 1))
    pixels = -(-width // tile_width) * tile_width * -(-height // tile_height) * tile_height
    check_decoded_bytes(pixels * number(_CHANNELS, 1) * number(_BITS, 1) // 8, width * height, max_pixels)
    if _JPEG in _first_numbers(tiff, tags, _COMPRESSION):
        starts, sizes = (
            [n for tag in tags if tag.number in kind for n in tiff.numbers(tag)] for kind in (_OFFSETS, _SIZES)
        )
        searched, scans = 0, 0.0
        for start, size in zip(starts, sizes, strict=False):
            searched += max(0, min(size, len(data) - start))
            TIFF_JPEG_SIZES.check(searched // len(data))
            # All together may have as many scans as one JPEG of the same size
            scans += check_jpeg(data, max_pixels // len(starts), start, start + size) / len(starts)
        share = max(share, scans)
    return share


def _first_numbers(tiff: _Tiff, tags: Sequence[_Tag], number: int) -> list[int]:
    """Return the first number of each tag of this kind; decoders differ in which of two equal tags they use."""
    return [value for tag in tags if tag.number == number for value in tiff.numbers(tag, most=1)]


def _check_values(tiff: _Tiff, tags: list[_Tag]) -> float:
    """Check the number of values in a directory and in those of its EXIF data."""
    directories = [tags]
    for pointer in (_EXIF, _GPS, _INTEROPERABILITY):
        # Of equal pointers in a directory, Pillow follows the first
        positions = [position for each in directories for position in _first_numbers(tiff, each, pointer)[:1]]
        directories += [tiff.directory(position) for position in positions]
    return TIFF_VALUES.check(sum(tag.values for each in directories for tag in each if tag.type not in _BYTES))
