"""Read the header of a WebP, and save memory while it is decoded."""

from __future__ import annotations

from typing import Any

from PIL import ImageFile

RIFF = b"RIFF"  # also the start of other formats


def release_decoder_early(image: ImageFile.ImageFile) -> None:
    """Let an opened WebP release its decoder as soon as its first frame is decoded.

    The decoder holds two canvases of 4 bytes per pixel. Pillow would keep them while it copies the frame, and after
    that: 16 to 20 bytes per pixel instead of 12.

    Args:
        image: of any format. Others than WebP are not changed.
    """
    webp: Any = image
    decode_frame = getattr(webp, "_get_next", None)
    if decode_frame is None:
        return

    def decode_and_release() -> object:
        frame = decode_frame()
        webp._decoder = None
        return frame

    webp._get_next = decode_and_release


def is_webp(data: bytes | bytearray) -> bool:
    """Return whether data starts like a WebP."""
    return data[:4] == RIFF and data[8:12] == b"WEBP"


def read_size(data: bytes) -> tuple[int, int]:
    """Read width and height from the header of a WebP (RFC 9649); (0, 0) if it is damaged."""
    kind = data[12:16]
    if kind == b"VP8X":  # extended: two numbers of 24 bits, minus 1
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":  # lossless: two numbers of 14 bits, minus 1
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":  # lossy: two numbers of 14 bits, and 2 bits that are not part of each
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    return 0, 0
