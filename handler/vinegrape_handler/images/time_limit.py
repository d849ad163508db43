"""The maximum time for decoding one image."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import IO, Any, cast

from PIL import ImageFile

from vinegrape_handler.errors import NEEDS_TIME, TooLarge

# CPU time, so that an image does not fail because its neighbours are slow. The largest legal image takes less than 2 s;
# a worker that does not respond for 15 s is replaced (response_timeout_s).
MAX_DECODE_SECONDS = 6.0


class _TimedFile:
    """A file that cannot be read after a time."""

    def __init__(self, file: IO[bytes], clock: Callable[[], float]) -> None:
        self._file = file
        self._clock = clock
        self._end = clock() + MAX_DECODE_SECONDS

    def read(self, size: int = -1) -> bytes:
        if self._clock() > self._end:
            raise TooLarge(NEEDS_TIME)
        return self._file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def limit_time(image: ImageFile.ImageFile, clock: Callable[[], float] = time.thread_time) -> None:
    """Limit the time in which an opened image can be loaded to `MAX_DECODE_SECONDS`.

    Pillow reads JPEG, PNG and uncompressed TIFF in blocks of up to 64 kB, and the time is checked before each. It
    decodes a compressed TIFF and a WebP in one call, and reads a run-length encoded BMP byte by byte: their time is
    limited by `check_structure` alone.

    Args:
        image: its `load` raises TooLarge when the time is over.
        clock: returns seconds; by default the CPU time of the calling thread, which must load the image.
    """
    if image.fp and image.format != "BMP":
        image.fp = cast(IO[bytes], _TimedFile(image.fp, clock))
