"""How this process gets its memory."""

from __future__ import annotations

import ctypes

# glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4

_LARGEST_THRESHOLD = 32 * 2**20  # glibc's own, on 64 bits: mallopt(3)


def keep_freed_memory(*, all_of_it: bool) -> bool:
    """Let the C library keep freed memory for what is allocated next, from here on and for the whole process.

    Who decodes an image or trains a step frees and allocates the same megabytes again and again. glibc gives each large
    block back to the system and asks for it anew, which then clears it page by page: two fifths of decoding a leaf,
    and a tenth to a fifth of a training step on CPU.

    Args:
        all_of_it: whatever its size, for training. Else blocks of up to 32 MiB, and 64 MiB of them at most: a worker
            that once decoded the largest picture does not stay as large.

    Returns:
        Whether it does; where the C library is not glibc, nothing changes.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # another C library, or a system that has none to ask
        return False
    if all_of_it:
        return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, -1))
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_THRESHOLD) and mallopt(_M_TRIM_THRESHOLD, 2 * _LARGEST_THRESHOLD))
