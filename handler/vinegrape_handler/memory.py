"""How the C library keeps the memory that this process frees."""

from __future__ import annotations

import ctypes
from typing import Literal

# glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4

_LARGEST_THRESHOLD = 32 * 2**20  # bytes; glibc's maximum on 64 bits: mallopt(3)


def retain_freed_memory(scope: Literal["worker", "training"]) -> bool:
    """Let the C library keep freed memory for later allocations, in the whole process.

    Decoding and training free and reallocate large buffers. glibc returns them to the kernel, which zeroes the pages
    again: 40 % of the time to decode a leaf, 10 to 20 % of a training step on a CPU.

    Args:
        scope: "worker" keeps blocks of up to 32 MiB, and at most 64 MiB of them, so that one very large image does not
            make a worker large for good. "training" keeps everything.

    Returns:
        Whether the C library accepted it; False, and no change, where it is not glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # another C library, or a system without a shared one
        return False
    if scope == "training":
        return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, -1))
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_THRESHOLD) and mallopt(_M_TRIM_THRESHOLD, 2 * _LARGEST_THRESHOLD))
