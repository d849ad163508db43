"""Statistics of a data set before training: image size, framing, transparency, colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vinegrape_training.data.dataset import scan
from vinegrape_training.data.transparency import OPAQUE
from vinegrape_training.errors import DataError
from vinegrape_training.progress import progress


@dataclass(frozen=True)
class ClassDescription:
    """Statistics of one class. In an image without transparency, every pixel belongs to the leaf.

    Attributes:
        name: name of the class.
        images: number of images.
        sizes: the distinct (width, height) of its images, in pixels.
        leaf: mean fraction of an image that the leaf covers, 0 to 1.
        leaf_range: smallest and largest such fraction.
        touching: fraction of the images whose leaf touches the edge of the image.
        translucent: mean fraction of an image that is neither transparent nor opaque.
        colour: mean RGB of the leaf's pixels, 0 to 255, with equal weight per image; None if no pixel is leaf.
    """

    name: str
    images: int
    sizes: tuple[tuple[int, int], ...]
    leaf: float
    leaf_range: tuple[float, float]
    touching: float
    translucent: float
    colour: tuple[float, float, float] | None


@dataclass(frozen=True)
class _ImageDescription:
    """The same statistics of one image."""

    size: tuple[int, int]
    leaf: float
    touching: bool
    translucent: float
    colour: NDArray[np.float64] | None  # [3]


def describe(folder: Path) -> list[ClassDescription]:
    """Compute the statistics of each class in a folder that holds one folder of images per class.

    Raises:
        DataError: `folder` is not such a folder, or an image cannot be opened.
    """
    dataset = scan(folder)
    images = [_describe_image(folder / path) for path in progress(dataset.paths, "Reading images")]
    return [
        _describe_class(name, [images[index] for index in dataset.indices_of(dataset.paths_of_class(label))])
        for label, name in enumerate(dataset.classes)
    ]


def _describe_class(name: str, images: Sequence[_ImageDescription]) -> ClassDescription:
    leaves = [image.leaf for image in images]
    colours = [image.colour for image in images if image.colour is not None]
    return ClassDescription(
        name=name,
        images=len(images),
        sizes=tuple(sorted({image.size for image in images})),
        leaf=float(np.mean(leaves)),
        leaf_range=(min(leaves), max(leaves)),
        touching=float(np.mean([image.touching for image in images])),
        translucent=float(np.mean([image.translucent for image in images])),
        colour=tuple(np.mean(colours, axis=0).tolist()) if colours else None,
    )


def _describe_image(path: Path) -> _ImageDescription:
    # not with the server's decode, which composites transparent pixels on white
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGBA"))  # uint8 [H, W, 4]
    except (OSError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read ({error}); repair or remove it.") from error
    alpha = pixels[..., 3]
    leaf = alpha >= OPAQUE
    edges = (leaf[0], leaf[-1], leaf[:, 0], leaf[:, -1])
    return _ImageDescription(
        size=(pixels.shape[1], pixels.shape[0]),
        leaf=float(leaf.mean()),
        touching=any(edge.any() for edge in edges),
        translucent=float(((alpha > 0) & (alpha < 255)).mean()),
        colour=pixels[leaf][:, :3].mean(axis=0) if leaf.any() else None,
    )


def table(classes: Sequence[ClassDescription]) -> str:
    """Format the statistics as text, one line per class."""
    width = max(len("class"), *(len(row.name) for row in classes))
    columns = f"images  {'size':>9}  {'leaf, % (min to max)':>23}  touches edge  translucent  {'RGB':>11}"
    lines = [f"{'class':{width}}  {columns}"]
    for row in classes:
        size = " x ".join(map(str, row.sizes[0])) if len(row.sizes) == 1 else f"{len(row.sizes)} sizes"
        low, high = row.leaf_range
        leaf = f"{row.leaf:.1%} ({low:.0%} to {high:.0%})"
        colour = " ".join(f"{channel:3.0f}" for channel in row.colour or ())
        lines.append(
            f"{row.name:{width}}  {row.images:6}  {size:>9}  {leaf:>23}  {row.touching:12.1%}  "
            f"{row.translucent:11.1%}  {colour:>11}"
        )
    return "\n".join(lines)
