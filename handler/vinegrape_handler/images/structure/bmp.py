"""The compression of a BMP (Microsoft's BITMAPINFOHEADER)."""

from __future__ import annotations

import struct

from vinegrape_handler.images.structure.limits import BMP_RLE_BYTES, BMP_RLE_PIXELS

_HEADER = struct.Struct("<iiHHI")  # width, height, planes, bits, compression
_RUN_LENGTHS = (1, 2)  # BI_RLE8, BI_RLE4


def check_bmp(data: bytes, max_pixels: int) -> float:
    """Check the size of a run-length encoded BMP.

    Returns:
        The share of the work that one image may cost, 0 to 1.

    Raises:
        TooLarge: a limit is exceeded.
    """
    if len(data) < 18 + _HEADER.size or int.from_bytes(data[14:18], "little") == 12:  # OS/2's header: not compressed
        return 0.0
    width, height, _, _, compression = _HEADER.unpack_from(data, 18)
    if compression in _RUN_LENGTHS:
        return max(BMP_RLE_BYTES.check(len(data)), BMP_RLE_PIXELS.check(abs(width * height)))
    return 0.0
