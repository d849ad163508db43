"""Configure how the C library reuses freed memory."""

from __future__ import annotations

import ctypes
from typing import Literal

# Parameters of mallopt, from glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4

_MAX_MMAP_THRESHOLD = 32 * 2**20  # bytes; glibc's maximum on 64-bit systems, see mallopt(3)


def retain_freed_memory(scope: Literal["worker", "training"]) -> bool:
    """Let the C library keep freed memory of this process for later allocations.

    Decoding and training free and reallocate large buffers. By default, glibc returns them to the kernel, which zeroes
    the pages again. This costs 40 % of the time to decode a leaf image, and 10 to 20 % of a training step on a CPU.

    Args:
        scope: "worker" keeps blocks of up to 32 MiB, and at most 64 MiB in total, so that one very large image does not
            increase a worker's memory permanently. "training" keeps everything.

    Returns:
        True if the C library accepted the change. False if it is not glibc; then nothing changes.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # no shared C library, or one without mallopt
        return False
    if scope == "training":
        return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, -1))
    return bool(mallopt(_M_MMAP_THRESHOLD, _MAX_MMAP_THRESHOLD) and mallopt(_M_TRIM_THRESHOLD, 2 * _MAX_MMAP_THRESHOLD))
