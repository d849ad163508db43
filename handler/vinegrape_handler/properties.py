"""Cheap properties of images, by which drift is noticed: brightness, sharpness, background, size and warmth.

They are measured on some rows and columns of the resized image: 0.11 ms per image of 320 px, on one thread.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LINES = 32  # rows and columns on which colours are measured, about
_DIFFERENT = 32  # a pixel whose red, green or blue differs by more than this from the background is not background


def measure(images: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
    """Measure the properties of images.

    Args:
        images: uint8 [N, S, S, 3], RGB, 0 to 255, with S at least 3.

    Returns:
        float64 [N] by name:

        - brightness: mean of all pixels and channels, 0 (black) to 1 (white).
        - sharpness: root mean square of the Laplacian of the green channel, 0 to 8. Blur lowers it.
        - background: brightness of the median colour of the border, 0 to 1.
        - size: share of the pixels that do not have the colour of the background, 0 to 1.
        - warmth: how much redder than blue the image is: 0 (blue), 0.5 (grey), 1 (red). Another colour of the light or
          of the leaf changes it.
    """
    count, side = images.shape[:2]
    step = max(1, side // _LINES)
    # Channels first: NumPy's reductions over an axis of 3 are slow
    colours = images[:, step // 2 :: step, step // 2 :: step].transpose(0, 3, 1, 2).astype(np.int16, order="C")
    border = np.concatenate(
        [colours[:, :, 0], colours[:, :, -1], colours[:, :, :, 0], colours[:, :, :, -1]], axis=2
    )  # [N, 3, pixels]
    middle = border.shape[2] // 2
    background = np.partition(border, middle, axis=2)[:, :, middle]  # [N, 3]
    leaf = np.abs(colours - background[:, :, None, None]).max(axis=1) > _DIFFERENT
    means = colours.reshape(count, 3, -1).mean(axis=2) / 255
    return {
        "brightness": means.mean(axis=1),
        "sharpness": _sharpness(images[..., 1], 2 * step),
        "background": background.mean(axis=1) / 255,
        "size": leaf.reshape(count, -1).mean(axis=1),
        "warmth": (1 + means[:, 0] - means[:, 2]) / 2,
    }


def _sharpness(planes: NDArray[np.uint8], step: int) -> NDArray[np.float64]:
    """Return the root mean square of the Laplacian on every `step`-th row of planes [N, S, S], in units of 255."""
    last = planes.shape[1] - 2
    above, row, below = (planes[:, offset : offset + last : step].astype(np.int16) for offset in range(3))
    laplacian = 4 * row[..., 1:-1] - row[..., :-2] - row[..., 2:] - above[..., 1:-1] - below[..., 1:-1]
    values = laplacian.reshape(len(planes), -1).astype(np.float32)
    squares = np.einsum("ij,ij->i", values, values, dtype=np.float64)
    return np.asarray(np.sqrt(squares / values.shape[1]) / 255)
