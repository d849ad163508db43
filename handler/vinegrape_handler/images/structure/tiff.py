"""The first directory of a TIFF (TIFF 6.0; BigTIFF), and the directories of its EXIF data."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from vinegrape_handler.images.structure.jpeg import check_jpeg
from vinegrape_handler.images.structure.limits import TIFF_BLOCKS, TIFF_TAGS, TIFF_VALUES, check_decoded_bytes

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _CHANNELS = 256, 257, 258, 259, 277
_OFFSETS, _SIZES = (273, 324), (279, 325)  # of strips, of tiles
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_EXIF, _GPS, _INTEROPERABILITY = 34665, 34853, 40965
_JPEG = 7

# Pillow keeps the values of these types as bytes: BYTE, ASCII, UNDEFINED
_BYTES = (1, 2, 7)
# The types of the numbers that are read here: BYTE, SHORT, LONG, IFD, LONG8, IFD8
_FORMATS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}


class _Tag(NamedTuple):
    """An entry of a directory. `value` holds the values if they fit in it, else their position in the file."""

    number: int
    type: int
    count: int
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
        (count,) = self._count.unpack_from(self._data, position)
        start, end = position + self._count.size, len(self._data)
        TIFF_TAGS.check(min(count, (end - start) // self._tag.size))
        tags = (_Tag(*values) for values in self._unpack(self._tag, self._data, start, count))
        return [tag for tag in tags if tag.count <= end]

    def numbers(self, tag: _Tag) -> Iterable[int]:
        """Return the numbers of a tag, at most `TIFF_VALUES.most`."""
        if tag.type not in _FORMATS:
            return ()
        number = struct.Struct(self._order + _FORMATS[tag.type])
        data, start = tag.value, 0
        if number.size * tag.count > len(tag.value):
            data, start = self._data, self._position.unpack(tag.value)[0]
        return (value for (value,) in self._unpack(number, data, start, min(tag.count, TIFF_VALUES.most)))

    @staticmethod
    def _unpack(item: struct.Struct, data: bytes, start: int, count: int) -> Iterable[tuple[int, ...]]:
        """Unpack up to `count` items; fewer if the data ends."""
        count = max(0, min(count, (len(data) - start) // item.size))
        return item.iter_unpack(data[start : start + count * item.size])


def check_tiff(data: bytes, max_pixels: int) -> None:
    """Check the numbers of tags, values, strips and tiles of a TIFF, the bytes of its pixels, and the JPEGs in it.

    Only the first page is decoded, so the other pages cost nothing.

    Raises:
        TooLarge: a limit is exceeded.
    """
    # Pillow reads a BigTIFF in big-endian order as if it were a classic TIFF, libtiff does not
    for is_big in {data[2] == 43, 43 in data[2:4]}:
        try:
            _check(_Tiff(data, is_big), data, max_pixels)
        except struct.error:  # it ends too early
            continue


def _check(tiff: _Tiff, data: bytes, max_pixels: int) -> None:
    tags = tiff.directory(tiff.first)
    _check_values(tiff, tags)
    TIFF_BLOCKS.check(max((tag.count for tag in tags if tag.number in _OFFSETS), default=0))

    def number(tag: int, default: int) -> int:
        return max(_first_numbers(tiff, tags, tag), default=default)

    width, height = number(_WIDTH, 0), number(_HEIGHT, 0)
    tile_width, tile_height = max(1, number(_TILE_WIDTH, 1)), max(1, number(_TILE_HEIGHT, 1))
    pixels = -(-width // tile_width) * tile_width * -(-height // tile_height) * tile_height
    check_decoded_bytes(pixels * number(_CHANNELS, 1) * number(_BITS, 1) // 8, max_pixels)
    if _JPEG in _first_numbers(tiff, tags, _COMPRESSION):
        starts, sizes = (
            [n for tag in tags if tag.number in kind for n in tiff.numbers(tag)] for kind in (_OFFSETS, _SIZES)
        )
        for start, size in zip(starts, sizes, strict=False):
            # All together may have as many scans as one JPEG of the same size
            check_jpeg(data, max_pixels // len(starts), start, start + size)


def _first_numbers(tiff: _Tiff, tags: Sequence[_Tag], number: int) -> list[int]:
    """Return the first number of each tag of this kind; decoders differ in which of two equal tags they use."""
    return [value for tag in tags if tag.number == number for value in list(tiff.numbers(tag))[:1]]


def _check_values(tiff: _Tiff, tags: list[_Tag]) -> None:
    """Check the number of values in a directory and in those of its EXIF data."""
    directories = [tags]
    for pointer in (_EXIF, _GPS, _INTEROPERABILITY):
        positions = [position for each in directories for position in _first_numbers(tiff, each, pointer)]
        directories += [tiff.directory(position) for position in positions]
    TIFF_VALUES.check(sum(tag.count for each in directories for tag in each if tag.type not in _BYTES))
