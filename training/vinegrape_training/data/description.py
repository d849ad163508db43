"""What can be counted about a data set before anything is trained: size, framing, transparency, colour."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vinegrape_training.data.dataset import scan
from vinegrape_training.errors import DataError

_OPAQUE = 128  # of 255: from here on a pixel counts as the leaf's


@dataclass(frozen=True)
class ClassDescription:
    """One class; of an image without transparency, every pixel counts as the leaf's.

    Attributes:
        name: of the class.
        images: how many.
        sizes: width and height of its images, each once.
        leaf: the mean part of an image that is leaf, 0 to 1.
        leaf_range: its least and its largest part in one image.
        touching: part of the images whose leaf reaches the frame.
        translucent: the mean part of an image that is neither transparent nor opaque.
        colour: the mean RGB of the leaf's pixels, 0 to 255, each image counting alike; None without any.
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
class _Counts:
    size: tuple[int, int]
    leaf: float
    touching: bool
    translucent: float
    colour: NDArray[np.float64] | None  # [3]


def describe(
    folder: Path, progress: Callable[[Sequence[str]], Iterable[str]] = lambda paths: paths
) -> list[ClassDescription]:
    """Count the pixels of a folder a class.

    Args:
        folder: holds a folder of images for each class.
        progress: what the paths go through while they are read.

    Raises:
        DataError: no such folder, or an image that cannot be opened.
    """
    dataset = scan(folder)
    counts = [_count(folder / path) for path in progress(dataset.paths)]
    described = []
    for label, name in enumerate(dataset.classes):
        own = [count for count, each in zip(counts, dataset.labels, strict=True) if each == label]
        leaves = [count.leaf for count in own]
        colours = [count.colour for count in own if count.colour is not None]
        described.append(
            ClassDescription(
                name=name,
                images=len(own),
                sizes=tuple(sorted({count.size for count in own})),
                leaf=float(np.mean(leaves)),
                leaf_range=(min(leaves), max(leaves)),
                touching=float(np.mean([count.touching for count in own])),
                translucent=float(np.mean([count.translucent for count in own])),
                colour=tuple(np.mean(colours, axis=0).tolist()) if colours else None,
            )
        )
    return described


def _count(path: Path) -> _Counts:
    # Not through the server's decode: that has laid on white what is to be counted here
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGBA"))  # uint8 [H, W, 4]
    except (OSError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read ({error}); repair or remove it.") from error
    alpha = pixels[..., 3]
    leaf = alpha >= _OPAQUE
    edges = (leaf[0], leaf[-1], leaf[:, 0], leaf[:, -1])
    return _Counts(
        size=(pixels.shape[1], pixels.shape[0]),
        leaf=float(leaf.mean()),
        touching=any(edge.any() for edge in edges),
        translucent=float(((alpha > 0) & (alpha < 255)).mean()),
        colour=pixels[leaf][:, :3].mean(axis=0) if leaf.any() else None,
    )


def table(described: Sequence[ClassDescription]) -> str:
    """The classes for people to read, a line each."""
    width = max(len("class"), *(len(each.name) for each in described))
    columns = f"images  {'size':>9}  {'leaf, % (least to most)':>23}  at the frame  translucent  {'RGB':>11}"
    lines = [f"{'class':{width}}  {columns}"]
    for each in described:
        size = " x ".join(map(str, each.sizes[0])) if len(each.sizes) == 1 else f"{len(each.sizes)} sizes"
        low, high = each.leaf_range
        leaf = f"{each.leaf:.1%} ({low:.0%} to {high:.0%})"
        colour = " ".join(f"{channel:3.0f}" for channel in each.colour or ())
        lines.append(
            f"{each.name:{width}}  {each.images:6}  {size:>9}  {leaf:>23}  {each.touching:12.1%}  "
            f"{each.translucent:11.1%}  {colour:>11}"
        )
    return "\n".join(lines)
