"""The chunks of a PNG (W3C PNG, third edition)."""

from __future__ import annotations

import struct

from vinegrape_handler.images.structure.limits import PNG_CHUNKS, check_decoded_bytes

_CHUNK = struct.Struct(">I4s")
_HEADER = struct.Struct(">IIBB")
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_END = b"IEND"


def check_png(data: bytes, max_pixels: int) -> float:
    """Check the number of chunks of a PNG, and the bytes of its pixels.

    Returns:
        The share of the work that one image may cost, 0 to 1.

    Raises:
        TooLarge: a limit is exceeded.
    """
    position, last, chunks = 8, len(data) - _CHUNK.size, 0
    unpack, most = _CHUNK.unpack_from, PNG_CHUNKS.most
    while position <= last and chunks <= most:
        length, kind = unpack(data, position)
        if kind == _END:
            break
        chunks += 1
        position += 12 + length
    share = PNG_CHUNKS.check(chunks)
    if len(data) >= 26 and data[12:16] == b"IHDR":
        width, height, depth, colour = _HEADER.unpack_from(data, 16)
        check_decoded_bytes(height * -(-width * depth * _CHANNELS.get(colour, 1) // 8), width * height, max_pixels)
    return share
