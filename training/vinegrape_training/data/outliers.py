"""Images of other things, which a network learns to tell from its classes: other plants, other objects, drawings."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vinegrape_handler.metadata import Interpolation
from vinegrape_training.data.dataset import files_digest, load_images
from vinegrape_training.data.image_folder import is_image
from vinegrape_training.data.opacity import read_opacities
from vinegrape_training.errors import DataError

MANIFEST_FILE = "manifest.csv"


@dataclass(frozen=True)
class Outlier:
    """One image that shows none of the classes.

    Attributes:
        path: POSIX path relative to the folder of outliers.
        kind: the first folder in the path, such as "things".
        source: where the image comes from, such as a repository.
        species: what it shows; may be empty.
    """

    path: str
    kind: str
    source: str
    species: str


@dataclass(frozen=True)
class Outliers:
    """The images of a folder that holds one folder of images per kind, at any depth.

    Attributes:
        folder: the folder.
        images: sorted by path.
    """

    folder: Path
    images: tuple[Outlier, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """The relative paths of all images."""
        return tuple(image.path for image in self.images)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kind of each image."""
        return tuple(image.kind for image in self.images)

    def digest(self) -> str:
        """Compute `files_digest` of all images, in the order of `paths`."""
        return files_digest(self.folder, self.paths)


@dataclass(frozen=True)
class OutlierSplit:
    """The outliers of one fold, as paths.

    Attributes:
        train: outliers that the network is trained with.
        new_source: outliers whose source and species the network has not seen.
        new_species: outliers whose species (or, without a species, image) the network has not seen. It may have seen
            their source.
    """

    train: tuple[str, ...]
    new_source: tuple[str, ...] = ()
    new_species: tuple[str, ...] = ()


def scan_outliers(folder: Path) -> Outliers:
    """List the outliers in a folder.

    The file `manifest.csv` may state source and species: it has the columns `file` (path), `repository` and `species`.
    Without it, the folder of an image is its source, and species is empty.

    Raises:
        DataError: `folder` is not a folder, or holds no folder with images.
    """
    if not folder.is_dir():
        raise DataError(
            f"outliers.dir={folder} is not a folder. Give a folder that holds one folder per kind of image."
        )
    rows = _manifest(folder / MANIFEST_FILE)
    found = sorted(
        path.relative_to(folder) for kind in folder.iterdir() if kind.is_dir() for path in kind.rglob("*")
        if is_image(path)
    )  # fmt: skip
    if not found:
        raise DataError(f"{folder} holds no images. It must hold one folder of images per kind, such as things/.")
    images = []
    for path in found:
        row = rows.get(path.as_posix(), {})
        source = row.get("repository") or path.parent.as_posix()
        images.append(Outlier(path.as_posix(), path.parts[0], source, row.get("species") or ""))
    return Outliers(folder, tuple(images))


def outlier_folds(outliers: Outliers, seed: int, count: int) -> tuple[OutlierSplit, ...]:
    """Split outliers for cross-validation.

    Each image is held out twice: in one fold with all images of its source and of its species, and in one fold with all
    images of its species only. Images of one kind that share a source or a species are one group; groups are spread
    over the folds by size.

    Args:
        outliers: what to split.
        seed: of NumPy's default generator.
        count: number of folds, at least 2.

    Raises:
        DataError: a fold has no outlier to train with.
    """
    generator = np.random.default_rng(seed)
    by_source = _spread(_groups(outliers.images, by_source=True), count, generator)
    by_species = _spread(_groups(outliers.images, by_source=False), count, generator)
    splits = []
    for fold in range(count):
        new_source, new_species = by_source[fold], by_species[fold]
        held_out = {*new_source, *new_species}
        train = tuple(path for path in outliers.paths if path not in held_out)
        if not train:
            raise DataError(
                f"{outliers.folder} has {len(outliers.images)} images of too few sources and species: one of {count} "
                "folds holds all of them out. Add images, or choose more folds."
            )
        splits.append(OutlierSplit(train, tuple(sorted(new_source)), tuple(sorted(new_species))))
    return tuple(splits)


@lru_cache(maxsize=1)
def load_outliers(outliers: Outliers, side: int, interpolation: Interpolation) -> NDArray[np.uint8]:
    """Decode all outliers: uint8 [N, side, side, 4], RGB and opacity. The result is cached and read-only."""
    images = load_images(outliers.folder, outliers.paths, side, interpolation, "Decoding outliers")
    opacity = read_opacities(outliers.folder, outliers.paths, images, interpolation)
    result = np.concatenate([images, opacity[..., np.newaxis]], axis=3)
    result.setflags(write=False)
    return result


class OutlierDraw:
    """Draws the outliers of training batches, with replacement.

    Each kind is drawn by the square root of its number of images: a small kind would otherwise hardly be drawn, and a
    few images would be drawn too often if all kinds had the same share.

    Args:
        kinds: the kind of each outlier.
        per_batch: number of outliers per batch.
    """

    def __init__(self, kinds: Sequence[str], per_batch: int) -> None:
        counts = Counter(kinds)
        self._weights = torch.tensor([counts[kind] ** -0.5 for kind in kinds])
        self._per_batch = per_batch

    def indices(self) -> Tensor:
        """Draw the indices of the outliers of one batch: int64 [per_batch]."""
        return torch.multinomial(self._weights, self._per_batch, replacement=True)


def _manifest(path: Path) -> dict[str, dict[str, str]]:
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {row.get("file", ""): row for row in csv.DictReader(file)}


def _groups(images: Iterable[Outlier], *, by_source: bool) -> list[list[Outlier]]:
    """Group images of a kind that share a species, and if `by_source`, those that share a source."""
    parent: dict[Hashable, Hashable] = {}

    def root(key: Hashable) -> Hashable:
        while parent.setdefault(key, key) != key:
            key = parent[key]
        return key

    def keys(image: Outlier) -> list[Hashable]:
        shared: list[Hashable] = [("image", image.path)]
        if image.species and image.species != image.kind:
            shared.append(("species", image.kind, image.species))
        if by_source:
            shared.append(("source", image.kind, image.source))
        return shared

    images = list(images)
    for image in images:
        first, *others = keys(image)
        for key in others:
            parent[root(key)] = root(first)
    groups: dict[Hashable, list[Outlier]] = defaultdict(list)
    for image in images:
        groups[root(("image", image.path))].append(image)
    return list(groups.values())


def _spread(groups: list[list[Outlier]], count: int, generator: np.random.Generator) -> list[list[str]]:
    """Give each group to the fold that has the fewest images of its kind: largest groups first, equal ones shuffled."""
    shuffled = [groups[index] for index in generator.permutation(len(groups))]
    starts = {kind: int(generator.integers(count)) for kind in sorted({group[0].kind for group in groups})}
    folds: list[list[str]] = [[] for _ in range(count)]
    sizes: dict[str, list[int]] = {kind: [0] * count for kind in starts}
    for group in sorted(shuffled, key=len, reverse=True):
        kind = group[0].kind
        # kinds start at different folds, so that their largest groups do not all go into the first one
        order = [(starts[kind] + step) % count for step in range(count)]
        fold = min(order, key=lambda number: sizes[kind][number])
        sizes[kind][fold] += len(group)
        folds[fold] += [image.path for image in group]
    return folds
