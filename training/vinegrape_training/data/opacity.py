"""Where an image shows its subject, and where the background: training puts other backgrounds there."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from vinegrape_handler.images.resize import resize
from vinegrape_handler.metadata import Interpolation
from vinegrape_training.data.dataset import Dataset, load_dataset
from vinegrape_training.data.transparency import is_transparent, read_rgba

_WHITE = 245  # the smallest value of a channel in a pixel that counts as background
_NOT_WHITE = 200  # and in one that counts as the subject; between both, it is partly transparent
_WHITE_BORDER = 0.8  # share of white pixels on the border of an image whose background is white


@lru_cache(maxsize=1)
def load_opacity(dataset: Dataset, side: int, interpolation: Interpolation) -> NDArray[np.uint8]:
    """Read the opacity of all images of a data set: uint8 [len(dataset.paths), side, side], see `read_opacity`."""
    return read_opacities(dataset.folder, dataset.paths, load_dataset(dataset, side, interpolation), interpolation)


def read_opacities(
    folder: Path, paths: Sequence[str], images: NDArray[np.uint8], interpolation: Interpolation
) -> NDArray[np.uint8]:
    """Read the opacity of images that `load_images` has read: uint8 [N, S, S], see `read_opacity`."""

    def read(path: str, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return read_opacity(folder / path, pixels, interpolation)

    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(read, paths, images)))


def read_opacity(path: Path, pixels: NDArray[np.uint8], interpolation: Interpolation) -> NDArray[np.uint8]:
    """Read the opacity of an image file, see `opacity_of`."""
    return opacity_of(read_rgba(path), pixels, interpolation)


def opacity_of(image: Image.Image, pixels: NDArray[np.uint8], interpolation: Interpolation) -> NDArray[np.uint8]:
    """Return the opacity of an image: from its alpha channel, or from its white background.

    Args:
        image: as `read_rgba` reads it.
        pixels: uint8 [S, S, 3], the image as `decode` and `resize` give it.
        interpolation: the filter for resizing the alpha channel.

    Returns:
        uint8 [S, S], 0 where the background is, 255 where the subject is. It is 255 everywhere if the image has
        neither an alpha channel nor a white background.
    """
    if is_transparent(image):
        # white is transparent, so the margins that `resize` adds are too
        transparency = ImageChops.invert(image.getchannel("A")).convert("RGB")
        opacity: NDArray[np.uint8] = 255 - resize(transparency, len(pixels), interpolation)[:, :, 0]
        return opacity
    darkest = pixels.min(axis=2).astype(np.float32)
    border = np.concatenate([darkest[0], darkest[-1], darkest[:, 0], darkest[:, -1]])
    if (border >= _WHITE).mean() < _WHITE_BORDER:
        return np.full(darkest.shape, 255, np.uint8)
    share = np.clip((_WHITE - darkest) / (_WHITE - _NOT_WHITE), 0, 1)
    return np.asarray(255 * share, np.uint8)
