from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vinegrape_handler.images.decode import decode
from vinegrape_handler.images.resize import resize
from vinegrape_training.data.dataset import LIMITS
from vinegrape_training.data.opacity import read_opacity


def opacity_of(path: Path, image: Image.Image, side: int = 32) -> NDArray[np.uint8]:
    image.save(path)
    return read_opacity(path, resize(decode(path.read_bytes(), LIMITS, side), side, "bilinear"), "bilinear")


def square(mode: str, background: tuple[int, ...], colour: tuple[int, ...], size: tuple[int, int]) -> Image.Image:
    """A square of 16 pixels in the middle of an image."""
    image = Image.new(mode, size, background)
    left, top = (length // 2 - 8 for length in size)
    image.paste(colour, (left, top, left + 16, top + 16))
    return image


def test_the_alpha_channel_is_the_opacity(tmp_path: Path) -> None:
    image = square("RGBA", (0, 0, 0, 0), (10, 120, 30, 128), (32, 32))
    opacity = opacity_of(tmp_path / "leaf.png", image)
    assert (opacity[8:24, 8:24] == 128).all()
    assert opacity.sum() == 16 * 16 * 128


def test_the_margins_of_an_oblong_image_are_transparent(tmp_path: Path) -> None:
    image = square("RGBA", (9, 9, 9, 255), (10, 120, 30, 255), (32, 24))
    image.putpixel((0, 0), (0, 0, 0, 0))
    opacity = opacity_of(tmp_path / "leaf.png", image)
    assert (opacity[:4] == 0).all()
    assert opacity[4, 0] == 0
    assert (opacity[5:28] == 255).all()


def test_without_alpha_a_white_background_is_transparent(tmp_path: Path) -> None:
    opacity = opacity_of(tmp_path / "leaf.png", square("RGB", (252, 250, 249), (10, 120, 30), (32, 32)))
    assert (opacity[8:24, 8:24] == 255).all()
    assert (opacity[:8] == 0).all()


@pytest.mark.parametrize("background", [(230, 230, 230), (255, 255, 0), (40, 90, 20)])
def test_an_image_on_another_background_is_opaque(tmp_path: Path, background: tuple[int, int, int]) -> None:
    assert (opacity_of(tmp_path / "leaf.png", square("RGB", background, (10, 120, 30), (32, 32))) == 255).all()
