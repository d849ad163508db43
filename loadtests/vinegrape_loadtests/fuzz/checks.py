"""What must be true of `decode` for any bytes."""

from __future__ import annotations

import time
import traceback
from pathlib import Path

from vinegrape_handler.errors import NEEDS_MEMORY, RequestError, TooLarge
from vinegrape_handler.images.decode import Limits, decode
from vinegrape_handler.images.resize import resize
from vinegrape_loadtests.fuzz.mutations import destroyed_headers

OK = 200
STATUSES = (OK, 400, 413, 415, 422)  # what an image may get
MAX_SECONDS = 2
SIDE = 320  # pixels per side of the network's input


class Violation(Exception):
    """Something is not as it must be. The message says what."""


def outcome(data: bytes, limits: Limits, side: int = SIDE) -> int:
    """Decode and resize an image as a worker does; return the status of its response.

    Raises:
        Violation: `decode` raises another exception than its own, returns no RGB image of a legal size, or takes longer
            than `MAX_SECONDS` of CPU time.
    """
    start = time.thread_time()
    try:
        status = _decode(data, limits, side)
    except RequestError as error:
        status = error.status
        if status not in STATUSES:
            raise Violation(f"status {status}: {error}") from error
    except MemoryError:
        status = TooLarge(NEEDS_MEMORY).status
    except Violation:
        raise
    except Exception as error:
        raise Violation(f"{type(error).__name__} in {_place(error)}: {error}") from error
    seconds = time.thread_time() - start
    if seconds > MAX_SECONDS:
        raise Violation(f"{seconds:.1f} s for an image with status {status}")
    return status


def _place(error: Exception) -> str:
    """Return the file and the line that raised an exception."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}, line {frame.lineno}"


def check_destroyed(data: bytes, limits: Limits, side: int = SIDE) -> None:
    """Check that no image is read from a file after its header was destroyed.

    Raises:
        Violation: one is, or `outcome` raises it.
    """
    for number, destroyed in enumerate(destroyed_headers(data)):
        if outcome(destroyed, limits, side) == OK:
            raise Violation(f"status 200 although the header is destroyed (change {number})")


def _decode(data: bytes, limits: Limits, side: int) -> int:
    image = decode(data, limits, side)
    width, height = image.size
    if image.mode != "RGB" or not 1 <= width * height <= limits.max_pixels:
        raise Violation(f"an image of mode {image.mode} and {width} x {height} pixels")
    pixels = resize(image, side, "bicubic")
    if pixels.shape != (side, side, 3) or pixels.dtype != "uint8":
        raise Violation(f"resized to {pixels.shape} of {pixels.dtype}")
    return OK
