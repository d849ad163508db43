"""Small data sets whose right answer can be seen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """On images of 32 pixels a side, threads would wait for each other longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def draw_colours(folder: Path, images_per_class: int, side: int = 32) -> Path:
    """Two classes that a child can tell apart: red squares and blue squares, each image with an own shade."""
    for name, channel in (("blue", 2), ("red", 0)):
        (folder / name).mkdir(parents=True)
        for index in range(images_per_class):
            colour = [0, 0, 0]
            colour[channel] = 255 - index
            Image.new("RGB", (side, side), tuple(colour)).save(folder / name / f"{index:02}.png")
    return folder


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """Ten red and ten blue images, 32 x 32."""
    return draw_colours(tmp_path / "colours", 10)
