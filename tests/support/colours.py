"""A data set of two classes that are easy to classify."""

from __future__ import annotations

from pathlib import Path

from PIL import Image


def draw_colours(folder: Path, images_per_class: int, side: int = 32) -> Path:
    """Write red and blue images, each in another shade, to one folder per class."""
    for name, channel in (("blue", 2), ("red", 0)):
        (folder / name).mkdir(parents=True)
        for index in range(images_per_class):
            colour = [0, 0, 0]
            colour[channel] = 255 - index
            Image.new("RGB", (side, side), tuple(colour)).save(folder / name / f"{index:02}.png")
    return folder
