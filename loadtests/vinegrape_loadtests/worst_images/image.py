"""An image, or a request, that costs as much as the limits allow."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

from vinegrape_handler.images.structure.limits import SIDE
from vinegrape_handler.settings import WorkerSettings

# Of samples: an image whose alpha is 0 everywhere is refused
HALF = b"\x80"

_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class WorstImage:
    """One format and shape.

    Attributes:
        format: the name of the format, or "JSON".
        shape: what makes it expensive.
        pixels: width times height that the header states; 0 if it is JSON.
        draw: returns the body of the request. Drawing the largest takes some seconds and a gigabyte.
    """

    format: str
    shape: str
    pixels: int
    draw: Callable[[], bytes]


def longest_sides(settings: WorkerSettings) -> tuple[int, int]:
    """Return the longer and the shorter side in pixels of the longest image that is accepted."""
    longer = min(SIDE.most, settings.max_image_pixels)
    return longer, max(1, settings.max_image_pixels // longer)


def square_side(settings: WorkerSettings) -> int:
    """Return the side in pixels of the largest square image."""
    return int(settings.max_image_pixels**0.5)


def repeated(item: bytes, room: int, most: int | None = None) -> bytes:
    """Repeat some bytes as often as they fit into `room` bytes, and at most `most` times."""
    count = max(0, room // len(item))
    return item * (count if most is None else min(count, most))


def compressed(*runs: tuple[bytes, int]) -> bytes:
    """Return a zlib stream of runs, each some bytes and how often they are repeated, without holding all in memory."""
    packer = zlib.compressobj(9)
    parts = []
    for item, count in runs:
        at_once = max(1, _PIECE_BYTES // max(1, len(item)))
        piece = item * min(at_once, count)
        parts += [packer.compress(piece) for _ in range(count // at_once)]
        parts.append(packer.compress(item * (count % at_once)))
    return b"".join([*parts, packer.flush()])
