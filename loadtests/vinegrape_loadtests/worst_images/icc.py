"""ICC profiles (ICC.1:2001) whose colours are far from those of sRGB, so that every pixel must be converted."""

from __future__ import annotations

import random
import struct

_D50 = (0.9642, 1.0, 0.8249)
_COLORANTS = {b"r": (0.7977, 0.288, 0.0), b"g": (0.1352, 0.7119, 0.0), b"b": (0.0313, 0.0001, 0.8252)}  # of ProPhoto
_HEADER_BYTES, _ENTRY_BYTES = 132, 12


def matrix_profile() -> bytes:
    """Return a profile of RGB: three primaries, and a curve of 4096 values for each channel."""
    curve = b"curv\0\0\0\0" + struct.pack(">I4096H", 4096, *(value * 16 for value in range(4096)))
    tags = {channel + b"XYZ": _xyz(colour) for channel, colour in _COLORANTS.items()}
    return _profile(b"RGB ", b"XYZ ", tags | {channel + b"TRC": curve for channel in _COLORANTS})


def table_profile(space: bytes, channels: int, nodes: int) -> bytes:
    """Return a profile with a table of random colours.

    Args:
        space: "RGB " or "CMYK".
        channels: number of channels of the space.
        nodes: colours per channel.
    """
    table = random.Random(0).randbytes(2 * 3 * nodes**channels)  # noqa: S311
    identity = struct.pack(">9i", *(65536 * (place % 4 == 0) for place in range(9)))
    curves = struct.pack(">2H", 0, 65535)
    head = b"mft2\0\0\0\0" + bytes([channels, 3, nodes, 0]) + identity + struct.pack(">2H", 2, 2)
    return _profile(space, b"Lab ", {b"A2B0": head + channels * curves + table + 3 * curves})


def _profile(space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {b"wtpt": _xyz(_D50), **tags}
    table, content = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        place = _HEADER_BYTES + _ENTRY_BYTES * len(tags) + len(content)
        table += name + struct.pack(">II", place, len(data))
        content += data + bytes(-len(data) % 4)
    size = _HEADER_BYTES + _ENTRY_BYTES * len(tags) + len(content)
    kinds = struct.pack(">4s4s4s12x4s", b"prtr" if space == b"CMYK" else b"mntr", space, connection, b"acsp")
    head = struct.pack(">I4sI", size, b"none", 2 << 24) + kinds
    return (
        head.ljust(68, b"\0")
        + struct.pack(">3i", *(round(65536 * value) for value in _D50))
        + bytes(48)
        + table
        + content
    )


def _xyz(values: tuple[float, float, float]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(65536 * value) for value in values))
