"""Refuse an image whose structure costs more than its bytes and pixels suggest, before anything is decoded."""

from __future__ import annotations

from collections.abc import Callable

from vinegrape_handler.images.bmp import SIGNATURE as BMP
from vinegrape_handler.images.jpeg import SIGNATURE as JPEG
from vinegrape_handler.images.png import SIGNATURE as PNG
from vinegrape_handler.images.structure.bmp import check_bmp
from vinegrape_handler.images.structure.jpeg import check_jpeg
from vinegrape_handler.images.structure.png import check_png
from vinegrape_handler.images.structure.tiff import check_tiff
from vinegrape_handler.images.structure.webp import check_webp
from vinegrape_handler.images.tiff import SIGNATURES as TIFF
from vinegrape_handler.images.webp import RIFF

_CHECKS: dict[bytes, Callable[[bytes, int], float]] = {
    PNG: check_png,
    JPEG: check_jpeg,
    BMP: check_bmp,
    RIFF: check_webp,
    **dict.fromkeys(TIFF, check_tiff),
}


def check_structure(data: bytes, max_pixels: int) -> float:
    """Check that the parts of an encoded image are within the limits of `structure.limits`.

    It steps over the parts by their lengths and decodes nothing: 1 to 100 us for ordinary images, and 0.5 ms per MB for
    progressive JPEGs. Damage is not reported here, but by the decoder.

    Args:
        data: the encoded image.
        max_pixels: maximum pixels of an image. Some limits are multiples of it.

    Returns:
        The share of the work that one image may cost, 0 to 1. Several images together can be limited by the sum.

    Raises:
        TooLarge: a limit is exceeded.
    """
    for signature, check in _CHECKS.items():
        if data.startswith(signature):
            return check(data, max_pixels)
    return 0.0
