"""Fixtures of the tests of training."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """A folder of two classes that are easy to classify: 10 red and 10 blue images, 32 x 32, each in another shade."""
    folder = tmp_path / "colours"
    for name, channel in (("blue", 2), ("red", 0)):
        (folder / name).mkdir(parents=True)
        for index in range(10):
            colour = [0, 0, 0]
            colour[channel] = 255 - index
            Image.new("RGB", (32, 32), tuple(colour)).save(folder / name / f"{index:02}.png")
    return folder
