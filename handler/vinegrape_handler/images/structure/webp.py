"""The size of a WebP."""

from __future__ import annotations

from vinegrape_handler.images.structure.limits import check_decoded_bytes
from vinegrape_handler.images.webp import is_webp, read_size

_CHANNELS = 4  # Pillow decodes every WebP to RGBA, and needs three copies of it


def check_webp(data: bytes, max_pixels: int) -> float:
    """Check the bytes of the pixels of a WebP.

    Returns:
        0: beyond its bytes and pixels, nothing in a WebP takes long.

    Raises:
        TooLarge: a limit is exceeded.
    """
    if is_webp(data):
        width, height = read_size(data)
        check_decoded_bytes(_CHANNELS * width * height, width * height, max_pixels)
    return 0.0
