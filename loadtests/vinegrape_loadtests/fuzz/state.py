"""What a fuzzing process writes into memory that its parent reads: it survives a crash and a hang of the process."""

from __future__ import annotations

import mmap
import struct
from collections import Counter
from pathlib import Path

from vinegrape_loadtests.fuzz.checks import STATUSES

_NUMBERS = struct.Struct("<QQQ")  # images that were begun and ended, bytes of the present one
_COUNTS = struct.Struct(f"<{len(STATUSES)}Q")
_HEAD = _NUMBERS.size + _COUNTS.size
_SIZE = 1 << 18


class State:
    """The counts of one process, and the image that it decodes.

    Args:
        path: the file of the memory; it is created if there is none.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(_SIZE))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _SIZE)

    def begin(self, data: bytes) -> None:
        """Keep the image that is decoded next."""
        begun, ended, _ = _NUMBERS.unpack_from(self._memory)
        self._memory[_HEAD : _HEAD + len(data)] = data
        _NUMBERS.pack_into(self._memory, 0, begun + 1, ended, len(data))

    def end(self, status: int | None) -> None:
        """Count an image with its status; None: something was wrong with it."""
        begun, ended, size = _NUMBERS.unpack_from(self._memory)
        _NUMBERS.pack_into(self._memory, 0, begun, ended + 1, size)
        if status is not None:
            at = _NUMBERS.size + 8 * STATUSES.index(status)
            struct.pack_into("<Q", self._memory, at, struct.unpack_from("<Q", self._memory, at)[0] + 1)

    @property
    def ended(self) -> int:
        """How many images are done."""
        return int(_NUMBERS.unpack_from(self._memory)[1])

    @property
    def present(self) -> tuple[int, bytes] | None:
        """The number and the bytes of the image that is decoded now; None if none is."""
        begun, ended, size = _NUMBERS.unpack_from(self._memory)
        return (begun, self._memory[_HEAD : _HEAD + size]) if begun > ended else None

    @property
    def counts(self) -> Counter[int]:
        """How many images got each status."""
        return Counter(dict(zip(STATUSES, _COUNTS.unpack_from(self._memory, _NUMBERS.size), strict=True)))

    def skip_present(self) -> None:
        """Count the present image as ended: its process has ended."""
        begun, _, size = _NUMBERS.unpack_from(self._memory)
        _NUMBERS.pack_into(self._memory, 0, begun, begun, size)
