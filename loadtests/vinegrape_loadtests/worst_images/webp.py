"""WebP files (RFC 9649)."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from functools import partial

import numpy as np
from PIL import Image

from vinegrape_handler.settings import WorkerSettings
from vinegrape_loadtests.images import encode
from vinegrape_loadtests.worst_images.exif import many_tags, pointers_to_itself
from vinegrape_loadtests.worst_images.image import WorstImage, repeated

_LONGEST = 16383  # pixels of a side
_ANIMATION, _EXIF, _ALPHA = 0x02, 0x08, 0x10  # flags of the chunk VP8X
_END_ROOM = 10_000


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return one chunk: kind, length, content, and a byte of padding if the length is odd."""
    return kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def webp(*chunks: bytes) -> bytes:
    """Return a WebP file."""
    content = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(content)) + content


def extended(width: int, height: int, flags: int = 0) -> bytes:
    """Return the chunk VP8X."""
    return chunk(b"VP8X", struct.pack("<I", flags) + _uint24(width - 1) + _uint24(height - 1))


def frame(width: int, height: int, image: bytes) -> bytes:
    """Return one frame of an animation, at the upper left corner.

    Args:
        width: of the frame, in pixels.
        height: of the frame, in pixels.
        image: the file of a still image.
    """
    return chunk(b"ANMF", bytes(6) + _uint24(width - 1) + _uint24(height - 1) + _uint24(100) + b"\0" + image[12:])


def worst_webps(settings: WorkerSettings) -> Iterator[WorstImage]:
    """Yield the worst WebP files."""
    # A WebP counts as RGBA, which may have 3/4 of the pixels
    most, room = settings.max_image_pixels * 3 // 4, settings.max_image_bytes
    side = min(_LONGEST, math.isqrt(most))
    square = side * side
    long, short = min(_LONGEST, most), min(_LONGEST, max(1, most // _LONGEST))
    lossless = {"lossless": True, "method": 0, "exact": True}
    yield WorstImage("WebP", "lossy", square, partial(_flat, "RGB", side, side, method=0))
    yield WorstImage("WebP", "lossy, alpha", square, partial(_flat, "RGBA", side, side, method=0))
    yield WorstImage("WebP", "lossless", square, partial(_flat, "RGB", side, side, **lossless))
    yield WorstImage("WebP", "lossless, alpha", square, partial(_flat, "RGBA", side, side, **lossless))
    draw = partial(_flat, "RGBA", short, long, **lossless)
    yield WorstImage("WebP", "lossless, longest side", short * long, draw)
    yield WorstImage("WebP", "lossless, random", (room // 5), partial(_random, room, **lossless))
    yield WorstImage("WebP", "animated, one large frame", square, partial(_animated, side, side))
    yield WorstImage("WebP", "animated, many small frames", square, partial(_many_frames, side, room - _END_ROOM))
    for name, exif in (
        ("of many tags", many_tags(min(60_000, room // 24))),
        ("that points to itself", pointers_to_itself(300)),
    ):
        yield WorstImage("WebP", f"EXIF {name}", 64, partial(_with_exif, exif))
    yield WorstImage("WebP", "many unknown chunks", 64, partial(_many_chunks, room - _END_ROOM))


def _uint24(value: int) -> bytes:
    return value.to_bytes(3, "little")


def _flat(mode: str, width: int, height: int, **options: object) -> bytes:
    colour = (0, 99, 0, 128)[: len(mode)]
    return encode(Image.new(mode, (width, height), colour), "WEBP", **options)


def _random(room: int, **options: object) -> bytes:
    side = int((room / 5) ** 0.5)
    values = np.random.default_rng(0).integers(0, 256, (side, side, 4), dtype=np.uint8)
    return encode(Image.fromarray(values), "WEBP", **options)


def _animated(width: int, height: int) -> bytes:
    image = frame(width, height, _flat("RGBA", width, height, lossless=True, method=0))
    return webp(extended(width, height, _ANIMATION | _ALPHA), chunk(b"ANIM", bytes(6)), image)


def _many_frames(side: int, room: int) -> bytes:
    small = frame(1, 1, _flat("RGBA", 1, 1, lossless=True))
    return webp(extended(side, side, _ANIMATION | _ALPHA), chunk(b"ANIM", bytes(6)), repeated(small, room))


def _with_exif(exif: bytes) -> bytes:
    image = _flat("RGBA", 8, 8, lossless=True)[12:]
    return webp(extended(8, 8, _ALPHA | _EXIF), image, chunk(b"EXIF", exif))


def _many_chunks(room: int) -> bytes:
    image = _flat("RGBA", 8, 8, lossless=True)[12:]
    return webp(extended(8, 8, _ALPHA), image, repeated(chunk(b"ABCD", b""), room))
