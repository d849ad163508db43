"""A folder a class: what is in it, how it is split, and its pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from vinegrape_handler.decode import Limits, decode
from vinegrape_handler.errors import RequestError
from vinegrape_handler.metadata import Interpolation
from vinegrape_handler.resize import resize
from vinegrape_handler.settings import PILLOW_MAX_PIXELS
from vinegrape_training.data.manifest import IMAGE_SUFFIXES, is_image
from vinegrape_training.errors import DataError

# One's own pictures may be larger than what a server takes from strangers.
LIMITS = Limits(max_bytes=256 * 2**20, max_pixels=PILLOW_MAX_PIXELS)


@dataclass(frozen=True)
class Dataset:
    """The images of a folder a class.

    Attributes:
        folder: what the paths are relative to.
        classes: names of its sub-folders, sorted; an image's label is an index into them.
        paths: relative posix paths, sorted.
        labels: of each path.
    """

    folder: Path
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    labels: tuple[int, ...]

    def digest(self) -> str:
        r"""Sha256 over the lines "PATH\0SHA256-OF-THE-FILE\n" of all images, in the order of their paths."""
        total = hashlib.sha256()
        for path in self.paths:
            file_digest = hashlib.sha256((self.folder / path).read_bytes()).hexdigest()
            total.update(f"{path}\0{file_digest}\n".encode())
        return total.hexdigest()

    def indices_of(self, paths: Sequence[str]) -> list[int]:
        """Where some of its paths stand among all."""
        position = {path: index for index, path in enumerate(self.paths)}
        return [position[path] for path in paths]

    def labels_of(self, paths: Sequence[str]) -> NDArray[np.int64]:
        """The labels of some of its paths, int64 [len(paths)]."""
        return np.array(self.labels, dtype=np.int64)[self.indices_of(paths)]


@dataclass(frozen=True)
class Split:
    """Which images train, which choose the checkpoint and the temperature, and which only measure.

    The last two may be empty: then the last epoch stays, or nothing is measured.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


def scan(folder: Path) -> Dataset:
    """List the images of a folder a class; hidden files and files of other kinds are passed over.

    Raises:
        DataError: no such folder, fewer than two classes, or a class without images.
    """
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}. Give one that holds a folder of images for each class.")
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if len(classes) < 2:
        raise DataError(f"{folder} holds {len(classes)} folders; training needs one a class, and at least 2 classes.")
    labelled: list[tuple[str, int]] = []
    for label, name in enumerate(classes):
        files = [path for path in (folder / name).iterdir() if is_image(path)]
        if not files:
            raise DataError(
                f"{folder / name} holds no image ({', '.join(IMAGE_SUFFIXES)}); add some or remove the folder."
            )
        labelled += [(path.relative_to(folder).as_posix(), label) for path in files]
    paths, labels = zip(*sorted(labelled), strict=True)
    return Dataset(folder, tuple(classes), paths, labels)


def split(dataset: Dataset, seed: int, validation_fraction: float, test_fraction: float) -> Split:
    """Deal each class's images to train, validation and test by the same fractions.

    The seed and the paths decide alone: not the file system's order, nor what the files contain.

    Args:
        dataset: what to split.
        seed: of numpy's default generator.
        validation_fraction: of each class, above 0; rounded to whole images, at least one.
        test_fraction: likewise; both together below 1.

    Raises:
        DataError: fractions that cannot be, or a class too small to give each part an image.
    """
    if min(validation_fraction, test_fraction) <= 0 or validation_fraction + test_fraction >= 1:
        raise DataError(
            "data.validation_fraction and data.test_fraction must be above 0 and together below 1; "
            f"they are {validation_fraction} and {test_fraction}."
        )
    generator = np.random.default_rng(seed)
    train: list[str] = []
    validation: list[str] = []
    test: list[str] = []
    for label, name in enumerate(dataset.classes):
        members = sorted(path for path, own in zip(dataset.paths, dataset.labels, strict=True) if own == label)
        validation_count = max(1, round(len(members) * validation_fraction))
        test_count = max(1, round(len(members) * test_fraction))
        if validation_count + test_count >= len(members):
            raise DataError(
                f"Class {name} has {len(members)} images, too few to give training, validation and test some each."
            )
        shuffled = [members[index] for index in generator.permutation(len(members))]
        test += shuffled[:test_count]
        validation += shuffled[test_count : test_count + validation_count]
        train += shuffled[test_count + validation_count :]
    return Split(tuple(sorted(train)), tuple(sorted(validation)), tuple(sorted(test)))


def folds(dataset: Dataset, seed: int, count: int) -> tuple[Split, ...]:
    """Deal each class's images to `count` parts of the same size, and let each part test what the others train.

    The seed and the paths decide alone. An image is in the test of exactly one of the splits.

    Args:
        dataset: what to split.
        seed: of numpy's default generator.
        count: of splits, at least 2.

    Raises:
        DataError: a class with fewer images than splits.
    """
    generator = np.random.default_rng(seed)
    dealt: list[list[str]] = [[] for _ in range(count)]
    for label, name in enumerate(dataset.classes):
        members = sorted(path for path, own in zip(dataset.paths, dataset.labels, strict=True) if own == label)
        if count < 2 or len(members) < count:
            raise DataError(f"Class {name} has {len(members)} images; that is no cross-validation of {count} folds.")
        for position, index in enumerate(generator.permutation(len(members))):
            # starting with another part for each class, so that odd sizes do not add up
            dealt[(position + label) % count].append(members[index])
    return tuple(
        Split(tuple(path for path in dataset.paths if path not in set(test)), (), tuple(sorted(test))) for test in dealt
    )


@lru_cache(maxsize=1)
def load_dataset(dataset: Dataset, side: int, interpolation: Interpolation) -> NDArray[np.uint8]:
    """All images of a data set, as `load_images` gives them; the folds of one evaluation decode them once."""
    images = load_images(dataset.folder, dataset.paths, side, interpolation)
    images.setflags(write=False)
    return images


def load_images(
    folder: Path, paths: Sequence[str], side: int, interpolation: Interpolation, description: str = "Decoding"
) -> NDArray[np.uint8]:
    """Read images as the server reads them: the same `decode`, the same `resize`.

    Args:
        folder: what the paths are relative to.
        paths: of the images.
        side: pixels a side.
        interpolation: "bilinear" or "bicubic".
        description: stands before the progress bar.

    Returns:
        uint8 [len(paths), side, side, 3], RGB, 0 to 255, in the order of the paths.

    Raises:
        DataError: an image that cannot be decoded, by name.
    """

    def load(path: str) -> NDArray[np.uint8]:
        try:
            return resize(decode((folder / path).read_bytes(), LIMITS, side), side, interpolation)
        except (RequestError, OSError) as error:
            raise DataError(f"{folder / path} cannot be trained on ({error}); repair or remove it.") from error

    images = np.empty((len(paths), side, side, 3), dtype=np.uint8)
    with ThreadPoolExecutor() as pool:  # Pillow lets go of the interpreter's lock while it decodes
        console = Console(stderr=True)
        decoded = track(pool.map(load, paths), description, total=len(paths), console=console, transient=True)
        for index, image in enumerate(decoded):
            images[index] = image
    return images
