"""An RGB image to the network's square input."""

from __future__ import annotations

import numpy as np
from cykooz_resizer import FilterType, ResizeAlg, ResizeOptions, Resizer
from numpy.typing import NDArray
from PIL import Image

from vinegrape_handler.decode import WHITE
from vinegrape_handler.metadata import Interpolation

# Pillow's filters of the same names. Pillow's bicubic is the cubic of parameter -0.5, which is Catmull-Rom's.
_FILTERS = {"bilinear": FilterType.bilinear, "bicubic": FilterType.catmull_rom}
_OPTIONS = {name: ResizeOptions(ResizeAlg.convolution(kind), use_alpha=False) for name, kind in _FILTERS.items()}


def resize(image: Image.Image, side: int, interpolation: Interpolation) -> NDArray[np.uint8]:
    """Scale the longer side to `side` and lay the image centred on a white square, so that nothing is cut off.

    White is what `decode` lays transparency on: a bar beside a leaf looks like the light box. A square image fills
    the square, and the result is that of timm's `Resize` with antialiasing but for rounding, which is done between
    the two directions: about 3 % of the values differ, nearly all by 1.

    Args:
        image: mode RGB, any size.
        side: pixels a side of the result.
        interpolation: "bilinear" or "bicubic", both with antialiasing.

    Returns:
        uint8 [side, side, 3], RGB, 0 to 255.
    """
    scale = side / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    if (width, height) != image.size:
        resized = Image.new("RGB", (width, height))
        # With SIMD, which Pillow does not use: a sixth of its time. A resizer is no thread's but its own.
        Resizer().resize_pil(image, resized, _OPTIONS[interpolation])
        image = resized
    if width == height:
        return np.asarray(image)
    square = Image.new("RGB", (side, side), WHITE)
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return np.asarray(square)
