"""An RGB image to the network's square input."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vinegrape_handler.decode import WHITE

Interpolation = Literal["bilinear", "bicubic"]
INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)

# Above three times the wanted size, Pillow first shrinks by whole factors; its documentation calls the result
# of 3.0 hardly distinguishable from a full resampling. Pictures below that are resampled in full.
_REDUCING_GAP = 3.0


def resize(image: Image.Image, side: int, interpolation: Interpolation) -> NDArray[np.uint8]:
    """Scale the longer side to `side` and lay the image centred on a white square, so that nothing is cut off.

    White is what `decode` lays transparency on: a bar beside a leaf looks like the light box. A square image fills
    the square, and the result is that of timm's `Resize` with antialiasing.

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
        resample = Image.Resampling[interpolation.upper()]
        image = image.resize((width, height), resample, reducing_gap=_REDUCING_GAP)
    if width == height:
        return np.asarray(image)
    square = Image.new("RGB", (side, side), WHITE)
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return np.asarray(square)
