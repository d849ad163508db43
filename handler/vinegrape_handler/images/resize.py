"""Resize RGB images to the network's square input."""

from __future__ import annotations

import numpy as np
from cykooz_resizer import FilterType, ResizeAlg, ResizeOptions, Resizer
from numpy.typing import NDArray
from PIL import Image

from vinegrape_handler.images.decode import WHITE
from vinegrape_handler.metadata import Interpolation

# The same filters as Pillow's: its bicubic is the cubic convolution with a = -0.5, which is the Catmull-Rom spline.
_FILTERS = {"bilinear": FilterType.bilinear, "bicubic": FilterType.catmull_rom}
_OPTIONS = {name: ResizeOptions(ResizeAlg.convolution(kind), use_alpha=False) for name, kind in _FILTERS.items()}

# For each side the bicubic filter has 4 weights per pixel of the source, first with 8 bytes and then with 2. They are
# small for photos, and 2 GB for an image of 50 million rows.
_WEIGHT_BYTES_PER_PIXEL = 4 * (8 + 2)
_DECODED_BYTES_PER_PIXEL = 12
# A worker has this memory for one image whatever its limit is (see `memory.limit_memory`): no check is necessary
_SMALL_BYTES = 1 << 26


def resize(image: Image.Image, side: int, interpolation: Interpolation) -> NDArray[np.uint8]:
    """Scale the longer side to `side` pixels and centre the image on a white square. Nothing is cut off.

    White is also the colour that `decode` blends transparent pixels with. For square images the result is that of
    timm's `Resize` with antialiasing, except for rounding between the horizontal and the vertical pass: about 3 % of
    the values differ, nearly all of them by 1.

    Args:
        image: mode RGB, any size.
        side: pixels per side of the result.
        interpolation: the filter, with antialiasing.

    Returns:
        uint8 [side, side, 3], RGB, 0 to 255.

    Raises:
        MemoryError: resizing needs more memory than this process may use.
    """
    width, height = fitted_size(image.size, side)
    if (width, height) != image.size:
        _check_memory(image.size, width)
        resized = Image.new("RGB", (width, height))
        # Uses SIMD and takes a sixth of Pillow's time. A Resizer must not be shared between threads.
        Resizer().resize_pil(image, resized, _OPTIONS[interpolation])
        image = resized
    if width == height:
        return np.asarray(image)
    square = Image.new("RGB", (side, side), WHITE)
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return np.asarray(square)


def fitted_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return the width and height that an image of a size has within the square of `resize`."""
    scale = side / max(size)
    width, height = (max(1, round(length * scale)) for length in size)
    return width, height


def _check_memory(size: tuple[int, int], width: int) -> None:
    """Check that the resizer can allocate what it needs: it ends the process if it cannot.

    Args:
        size: of the image, in pixels.
        width: of the resized image, in pixels.

    Raises:
        MemoryError: it cannot.
    """
    width_before, height_before = size
    weights = _WEIGHT_BYTES_PER_PIXEL * (width_before + height_before)
    between_passes = 4 * width * height_before  # 4 bytes per pixel
    if weights + between_passes + _DECODED_BYTES_PER_PIXEL * width_before * height_before > _SMALL_BYTES:
        # Allocates without using the memory. It takes 60 us
        np.empty(weights + between_passes + _SMALL_BYTES, np.uint8)
