"""PNG files (https://www.w3.org/TR/png-3/), written chunk by chunk."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from PIL import Image

from vinegrape_handler.images.structure.limits import PNG_CHUNKS
from vinegrape_handler.settings import WorkerSettings
from vinegrape_loadtests.images import encode
from vinegrape_loadtests.worst_images import icc
from vinegrape_loadtests.worst_images.exif import many_tags, pointers_to_itself
from vinegrape_loadtests.worst_images.image import HALF, WorstImage, compressed, longest_sides, repeated, square_side

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _PALETTE, _RGBA = 0, 2, 3, 6  # colour types
_CHANNELS = {_GREY: 1, _RGB: 3, _PALETTE: 1, _RGBA: 4}
# x and y of the first pixel of each pass, and the distances to the next
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_BOMB_BYTES = 100_000_000
_END_ROOM = 1000  # bytes for the header and the end of a file that is filled with chunks


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    """Return one chunk: length, kind, content and checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def flat(width: int, height: int, depth: int = 8, colour: int = _RGBA, *, between: bytes = b"", idat: int = 0) -> bytes:
    """Return an image whose samples are all the same: half transparent grey, or a colour of the palette.

    Args:
        width: in pixels.
        height: in pixels.
        depth: bits per sample.
        colour: the colour type.
        between: chunks between the header and the pixels.
        idat: bytes of the pixels per chunk; 0: all in one chunk.
    """
    row = b"\0" + HALF * ((width * _CHANNELS[colour] * depth + 7) // 8)  # a filter byte before each row
    pixels = compressed((row, height))
    step = idat or len(pixels)
    chunks = [chunk(b"IDAT", pixels[at : at + step]) for at in range(0, len(pixels), step)]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"".join([_SIGNATURE, header, between, *chunks, chunk(b"IEND")])


def worst_pngs(settings: WorkerSettings) -> Iterator[WorstImage]:
    """Yield the worst PNG files."""
    side, most, room = square_side(settings), settings.max_image_pixels, settings.max_image_bytes - _END_ROOM
    square = side * side
    gamma = chunk(b"gAMA", struct.pack(">I", 100_000))  # 1: linear
    profiles = {"matrix": icc.matrix_profile(), "table": icc.table_profile(b"RGB ", 3, 17)}
    palette = chunk(b"PLTE", bytes(768)) + chunk(b"tRNS", bytes(range(256)))
    yield WorstImage("PNG", "RGB", square, partial(flat, side, side, 8, _RGB))
    yield WorstImage("PNG", "RGBA", square, partial(flat, side, side))
    for name, profile in profiles.items():
        between = chunk(b"iCCP", b"a\0\0" + zlib.compress(profile))
        yield WorstImage("PNG", f"RGBA, profile with a {name}", square, partial(flat, side, side, between=between))
    yield WorstImage("PNG", "RGBA, gamma 1", square, partial(flat, side, side, between=gamma))
    yield WorstImage("PNG", "RGBA, 16 bits", square, partial(flat, side, side, 16))
    yield WorstImage("PNG", "grey, 16 bits", square, partial(flat, side, side, 16, _GREY))
    yield WorstImage("PNG", "grey, 1 bit", square, partial(flat, side, side, 1, _GREY))
    yield WorstImage("PNG", "palette with alpha", square, partial(flat, side, side, 8, _PALETTE, between=palette))
    yield WorstImage("PNG", "RGBA, interlaced", square, partial(_interlaced, side))
    half = int((most / 2) ** 0.5)
    yield WorstImage("PNG", "RGBA, 16 bits, half the pixels", half * half, partial(flat, half, half, 16))
    longer, shorter = longest_sides(settings)
    sides = {"1 column": (1, most), "1 row": (most, 1), "tallest": (shorter, longer), "widest": (longer, shorter)}
    for name, (width, height) in sides.items():
        yield WorstImage("PNG", f"RGBA, {name}", width * height, partial(flat, width, height))
    yield WorstImage("PNG", "random RGBA", int((room / 4.1) ** 0.5) ** 2, partial(_noise, room))
    yield WorstImage("PNG", "a byte of pixels per chunk", square, partial(flat, side, side, 8, _RGB, idat=1))
    yield from _many_chunks(room)
    yield from _metadata(room)


def _many_chunks(room: int) -> Iterator[WorstImage]:
    for name, kind, content in (
        ("private chunks", b"prIV", b""),
        ("text chunks", b"tEXt", b"a\0b"),
        ("gamma chunks", b"gAMA", bytes([0, 0, 177, 143])),
        ("EXIF chunks", b"eXIf", b"MM\0*\0\0\0\x08\0\0"),
        ("empty pixel chunks", b"IDAT", b""),
    ):
        chunks = partial(repeated, chunk(kind, content), room)
        yield WorstImage("PNG", f"many {name}", 64, partial(_between, chunks))
        chunks = partial(repeated, chunk(kind, content), room, PNG_CHUNKS.most - 2)  # 2: header and pixels
        yield WorstImage("PNG", f"{name}, as many as accepted", 64, partial(_between, chunks))


def _metadata(room: int) -> Iterator[WorstImage]:
    metadata = partial(_zlib_bomb, b"zTXt", b"a\0\0")
    yield WorstImage("PNG", "a compressed text of 100 MB", 64, partial(_between, metadata))
    metadata = partial(_zlib_bomb, b"iCCP", b"a\0\0")
    yield WorstImage("PNG", "a compressed ICC profile of 100 MB", 64, partial(_between, metadata))
    tags = min(60_000, room // 24)
    metadata = partial(chunk, b"eXIf", many_tags(tags))
    yield WorstImage("PNG", "EXIF of many tags", 64, partial(_between, metadata))
    metadata = partial(chunk, b"eXIf", pointers_to_itself(min(300, room // 36)))
    yield WorstImage("PNG", "EXIF that points to itself", 64, partial(_between, metadata))


def with_chunks(kind: bytes, room: int, most: int) -> bytes:
    """Return a small image with empty chunks of one kind, as many as fit into `room` bytes and at most `most`."""
    return flat(8, 8, between=repeated(chunk(kind), room, most))


def _between(make_chunks: Callable[[], bytes]) -> bytes:
    return flat(8, 8, between=make_chunks())


def _zlib_bomb(kind: bytes, head: bytes) -> bytes:
    return chunk(kind, head + compressed((bytes(1000), _BOMB_BYTES // 1000)))


def _interlaced(side: int) -> bytes:
    """Return RGBA whose rows are in Adam7's order."""
    rows = []
    for x, y, dx, dy in _ADAM7:
        width, height = -(-(side - x) // dx), -(-(side - y) // dy)
        if width > 0:
            rows.append((b"\0" + HALF * (4 * width), height))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, _RGBA, 0, 0, 1))
    return _SIGNATURE + header + chunk(b"IDAT", compressed(*rows)) + chunk(b"IEND")


def _noise(room: int) -> bytes:
    """Return random RGBA, which cannot be compressed."""
    side = int((room / 4.1) ** 0.5)
    values = np.random.default_rng(0).integers(0, 256, (side, side, 4), dtype=np.uint8)
    return encode(Image.fromarray(values), "PNG", compress_level=1)
