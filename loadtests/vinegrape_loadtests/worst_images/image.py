"""An image, or a request, that costs as much as the limits allow."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

from vinegrape_handler.settings import WorkerSettings


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


def square_side(settings: WorkerSettings) -> int:
    """Return the side in pixels of the largest square image."""
    return int(settings.max_image_pixels**0.5)


def repeated(item: bytes, room: int) -> bytes:
    """Repeat some bytes as often as they fit into `room` bytes."""
    return item * max(0, room // len(item))


def compressed_zeros(count: int, piece: int = 1 << 20) -> bytes:
    """Return `count` zeros as a zlib stream, without holding all of them in memory."""
    packer = zlib.compressobj(9)
    zeros = bytes(piece)
    parts = [packer.compress(zeros) for _ in range(count // piece)]
    return b"".join([*parts, packer.compress(bytes(count % piece)), packer.flush()])
