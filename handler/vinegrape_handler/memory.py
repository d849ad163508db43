"""Configure how the C library reuses freed memory, and limit the memory of a worker."""

from __future__ import annotations

import ctypes
import resource
from pathlib import Path
from typing import Literal

from vinegrape_handler.errors import SettingError
from vinegrape_handler.settings import WorkerSettings

# Parameters of mallopt, from glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4

_MAX_MMAP_THRESHOLD = 32 * 2**20  # bytes; glibc's maximum on 64-bit systems, see mallopt(3)

# What one image needs at most, measured: 12 bytes per pixel, for grey with alpha as PNG or TIFF (the decoded image and
# two copies). No more than necessary: this limit alone bounds a WebP with 65,536 groups of Huffman codes, which would
# take 1 GB
_BYTES_PER_PIXEL = 14
# The buffer of the connection; and for each request of a batch its bytes and its decoded images. (A request needs two
# more copies while it is parsed, but then no image is decoded.)
_REQUEST_BYTES_PER_IMAGE_BYTE = 1.5  # an image in base64 must fit
_COPIES_PER_REQUEST = 2
_FREE_MB = 128  # for everything else, and enough for small images, see `resize`

_MB = 10**6


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


def limit_memory(settings: WorkerSettings, batch_size: int, network_bytes: int) -> int | None:
    """Limit the memory of this process, which has loaded its model and nothing else.

    A request that needs more gets a MemoryError. Without the limit, the kernel would end some process of the machine.
    The limit is RLIMIT_DATA, which counts the memory that this process alone uses and has not mapped from a file.

    Args:
        settings: `worker_memory_mb`, and the limits of a request from which the automatic value is computed.
        batch_size: maximum requests in one batch.
        network_bytes: memory that the network's largest call will need in addition to what it has now.

    Returns:
        The limit in bytes. None if this is not Linux; then nothing changes.

    Raises:
        SettingError: `worker_memory_mb` is too small for the loaded model.
    """
    used = data_bytes()
    if not used:
        return None
    image_bytes = _BYTES_PER_PIXEL * settings.max_image_pixels * max(1, settings.decode_threads)
    request_bytes = int(_REQUEST_BYTES_PER_IMAGE_BYTE * settings.max_image_bytes)
    minimum = used + network_bytes + request_bytes * (1 + _COPIES_PER_REQUEST * batch_size) + _MB * _FREE_MB
    limit = _MB * settings.worker_memory_mb or minimum + image_bytes
    if limit < minimum:
        raise SettingError(
            f"worker_memory_mb is {settings.worker_memory_mb}, which is too small for this model. Set it to at least "
            f"{minimum // _MB + 1}, or to 0 for an automatic limit."
        )
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    return limit


def data_bytes() -> int:
    """Return the memory of this process that RLIMIT_DATA counts, in bytes; 0 if this is not Linux."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmData:")), 0)
