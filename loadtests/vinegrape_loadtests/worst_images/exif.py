"""EXIF data (TIFF 6.0 directories), little-endian, that costs more to read than its size suggests."""

from __future__ import annotations

import struct

POINTERS = (34665, 34853, 40965)  # to the directories EXIF, GPS and Interoperability
_LONG = 4
_START = b"II*\0\x08\0\0\0"


def many_tags(count: int) -> bytes:
    """Return a directory of private tags, which share the file's first bytes as their values."""
    entries = b"".join(struct.pack("<HHII", 400 + index, 1, 8, 0) for index in range(count))
    return _START + struct.pack("<H", count) + entries + bytes(4)


def pointers_to_itself(count: int) -> bytes:
    """Return a directory with `count` pointers of each kind, all of which lead to the directory itself."""
    entries = b"".join(struct.pack("<HHII", kind, _LONG, 1, len(_START)) for kind in POINTERS for _ in range(count))
    return _START + struct.pack("<H", 3 * count) + entries + bytes(4)
