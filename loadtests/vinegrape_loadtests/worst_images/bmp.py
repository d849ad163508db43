"""BMP files, with the header BITMAPINFOHEADER of Windows (40 bytes)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import partial

from vinegrape_handler.images.structure.limits import BMP_RLE_BYTES, BMP_RLE_PIXELS
from vinegrape_handler.settings import WorkerSettings
from vinegrape_loadtests.worst_images.image import HALF, WorstImage, longest_sides, repeated

PLAIN, RLE8, RLE4 = 0, 1, 2  # compression
_HEADER_BYTES = 54


def bmp(width: int, height: int, bits: int, pixels: bytes, compression: int = PLAIN) -> bytes:
    """Return a BMP file; up to 8 bits per pixel it has a grey palette.

    Args:
        width: in pixels.
        height: in pixels.
        bits: per pixel.
        pixels: the rows from below, each a multiple of 4 bytes; or RLE codes.
        compression: number of the compression.
    """
    colours = 1 << bits if bits <= 8 else 0
    palette = b"".join(bytes([value * 255 // (colours - 1)] * 3 + [0]) for value in range(colours))
    start = _HEADER_BYTES + len(palette)
    head = struct.pack("<2sIHHI", b"BM", start + len(pixels), 0, 0, start)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(pixels), 2835, 2835, colours, 0)
    return head + info + palette + pixels


def plain(width: int, height: int, bits: int) -> bytes:
    """Return a BMP file without compression, whose bytes are all the same."""
    return bmp(width, height, bits, HALF * ((width * bits + 31) // 32 * 4 * height))


def worst_bmps(settings: WorkerSettings) -> Iterator[WorstImage]:
    """Yield the worst BMP files."""
    most, room = settings.max_image_pixels, settings.max_image_bytes - _HEADER_BYTES - 4 * 256
    for bits in (1, 8, 24, 32):
        side = int(min(most, room * 8 // bits) ** 0.5) // 32 * 32
        yield WorstImage("BMP", f"{bits} bits", side * side, partial(plain, side, side, bits))
    longer, shorter = longest_sides(settings)
    sides = {"1 column": (1, min(most, room // 4)), "1 row": (most, 1), "tallest": (shorter, longer)}
    for name, (width, height) in sides.items():
        yield WorstImage("BMP", f"1 bit, {name}", width * height, partial(plain, width, height, 1))
    yield from _run_lengths(int(most**0.5), room, "")
    accepted = int(min(most, BMP_RLE_PIXELS.most) ** 0.5)
    yield from _run_lengths(accepted, min(room, BMP_RLE_BYTES.most - _HEADER_BYTES - 4 * 256), ", as many as accepted")


def _run_lengths(side: int, room: int, suffix: str) -> Iterator[WorstImage]:
    """Yield the worst files of run lengths, with `side` pixels per side and codes of `room` bytes."""
    for name, compression, bits in (("RLE8", RLE8, 8), ("RLE4", RLE4, 4)):
        yield WorstImage("BMP", f"{name}, long runs{suffix}", side * side, partial(runs, side, bits, compression, 255))
        runs_of_1 = int(min(side * side, room // 2) ** 0.5) - 2  # 2 less, for the ends of the rows
        draw = partial(runs, runs_of_1, bits, compression, 1)
        yield WorstImage("BMP", f"{name}, runs of 1 pixel{suffix}", runs_of_1 * runs_of_1, draw)
        draw = partial(_line_ends, side, bits, compression, room)
        yield WorstImage("BMP", f"{name}, many ends of lines{suffix}", side * side, draw)


def runs(side: int, bits: int, compression: int, length: int) -> bytes:
    """Return an RLE file of runs of one colour."""
    whole, rest = divmod(side, length)
    row = bytes([length, 0]) * whole + (bytes([rest, 0]) if rest else b"") + b"\0\0"  # 0 0: the end of a row
    return bmp(side, side, bits, row * side + b"\0\1", compression)


def _line_ends(side: int, bits: int, compression: int, room: int) -> bytes:
    """Return an RLE file with a run past the end of the row, then ends of rows, each of which fills a row."""
    return bmp(side, side, bits, bytes([255, 0]) * 2 + repeated(b"\0\0", room - 6) + b"\0\1", compression)
