"""Where an image shows its subject, and where the background: training puts other backgrounds there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vinegrape_handler.images.resize import resize
from vinegrape_handler.metadata import Interpolation

_WHITE = 245  # the smallest value of a channel in a pixel that counts as background
_NOT_WHITE = 200  # and in one that counts as the subject; between both, it is partly transparent
_WHITE_BORDER = 0.8  # share of white pixels on the border of an image whose background is white


def read_opacity(path: Path, pixels: NDArray[np.uint8], interpolation: Interpolation) -> NDArray[np.uint8]:
    """Read the opacity of an image: from its alpha channel, or from its white background.

    Args:
        path: of the image file.
        pixels: uint8 [S, S, 3], the image as `decode` and `resize` give it.
        interpolation: the filter for resizing the alpha channel.

    Returns:
        uint8 [S, S], 0 where the background is, 255 where the subject is. It is 255 everywhere if the image has
        neither an alpha channel nor a white background.
    """
    with Image.open(path) as image:
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            transparency = Image.eval(image.convert("RGBA").getchannel("A"), lambda alpha: 255 - alpha)
            # white is transparent, so the margins that `resize` adds are too
            opacity: NDArray[np.uint8] = 255 - resize(transparency.convert("RGB"), len(pixels), interpolation)[:, :, 0]
            return opacity
    darkest = pixels.min(axis=2).astype(np.float32)
    border = np.concatenate([darkest[0], darkest[-1], darkest[:, 0], darkest[:, -1]])
    if (border >= _WHITE).mean() < _WHITE_BORDER:
        return np.full(darkest.shape, 255, np.uint8)
    share = np.clip((_WHITE - darkest) / (_WHITE - _NOT_WHITE), 0, 1)
    return np.asarray(255 * share, np.uint8)
