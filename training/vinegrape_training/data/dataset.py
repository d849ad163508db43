"""A folder with one folder of images per class: its images and labels, its splits, its pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vinegrape_handler.errors import RequestError
from vinegrape_handler.images.decode import Limits, decode
from vinegrape_handler.images.resize import resize
from vinegrape_handler.metadata import Interpolation
from vinegrape_handler.settings import PILLOW_MAX_PIXELS
from vinegrape_training.data.image_folder import IMAGE_SUFFIXES, list_images
from vinegrape_training.errors import DataError
from vinegrape_training.progress import progress

# Local training images may exceed the server's upload limits.
LIMITS = Limits(max_bytes=256 * 2**20, max_pixels=PILLOW_MAX_PIXELS)


@dataclass(frozen=True)
class Dataset:
    """The images of a folder that holds one folder per class.

    Attributes:
        folder: the folder; paths are relative to it.
        classes: names of the class folders, sorted. A label is an index into this tuple.
        paths: relative POSIX paths of all images, sorted.
        labels: label of each path.
    """

    folder: Path
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    labels: tuple[int, ...]

    def file_digests(self) -> Sequence[str]:
        """Compute the SHA-256 of each image's file, in hexadecimal."""
        return _file_digests(self.folder, self.paths)

    def digest(self) -> str:
        """Compute `total_digest` of all images, in the order of `paths`."""
        return total_digest(self.paths, self.file_digests())

    def indices_of(self, paths: Sequence[str]) -> list[int]:
        """Return the indices of some paths in `self.paths`."""
        position = {path: index for index, path in enumerate(self.paths)}
        return [position[path] for path in paths]

    def labels_of(self, paths: Sequence[str]) -> NDArray[np.int64]:
        """Return the labels of some paths, int64 [len(paths)]."""
        return np.array(self.labels, dtype=np.int64)[self.indices_of(paths)]

    def paths_of_class(self, label: int) -> list[str]:
        """Return the sorted paths of one class."""
        return sorted(path for path, other in zip(self.paths, self.labels, strict=True) if other == label)


@dataclass(frozen=True)
class Split:
    """The training, validation and test images, as paths of a `Dataset`.

    The checkpoint is chosen, and the temperature fitted, on the validation images. Without any, training keeps the last
    epoch's weights. Test images are used only to measure the network. Both may be empty.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


def scan(folder: Path) -> Dataset:
    """List the images of a folder that holds one folder per class. Hidden and other files are ignored.

    Raises:
        DataError: `folder` is not a folder, holds fewer than two classes, or holds a class without images.
    """
    images = list_images(folder)
    if len(images) < 2:
        raise DataError(
            f"{folder} holds {len(images)} folders. Training needs one folder per class and at least 2 classes."
        )
    labelled: list[tuple[str, int]] = []
    for label, (name, files) in enumerate(images.items()):
        if not files:
            raise DataError(
                f"{folder / name} holds no image ({', '.join(IMAGE_SUFFIXES)}); add some or remove the folder."
            )
        labelled += [(path.relative_to(folder).as_posix(), label) for path in files]
    paths, labels = zip(*sorted(labelled), strict=True)
    return Dataset(folder, tuple(images), paths, labels)


def split(dataset: Dataset, seed: int, validation_fraction: float, test_fraction: float) -> Split:
    """Split each class into training, validation and test images by the same fractions (stratified).

    The result depends only on the seed and the paths, not on the order of the file system or on file contents.

    Args:
        dataset: what to split.
        seed: of NumPy's default generator.
        validation_fraction: fraction of each class, above 0. It is rounded to whole images, at least one.
        test_fraction: the same for the test images. Both together must be below 1.

    Raises:
        DataError: invalid fractions, or a class with too few images for all three parts.
    """
    if min(validation_fraction, test_fraction) <= 0 or validation_fraction + test_fraction >= 1:
        raise DataError(
            f"data.validation_fraction is {validation_fraction} and data.test_fraction is {test_fraction}; "
            "both must be above 0 and together below 1."
        )
    generator = np.random.default_rng(seed)
    train: list[str] = []
    validation: list[str] = []
    test: list[str] = []
    for label, name in enumerate(dataset.classes):
        paths = dataset.paths_of_class(label)
        validation_count = max(1, round(len(paths) * validation_fraction))
        test_count = max(1, round(len(paths) * test_fraction))
        if validation_count + test_count >= len(paths):
            raise DataError(
                f"Class {name} has {len(paths)} images, too few for training, validation and test. Add images."
            )
        shuffled = [paths[index] for index in generator.permutation(len(paths))]
        test += shuffled[:test_count]
        validation += shuffled[test_count : test_count + validation_count]
        train += shuffled[test_count + validation_count :]
    return Split(tuple(sorted(train)), tuple(sorted(validation)), tuple(sorted(test)))


def folds(dataset: Dataset, seed: int, count: int) -> tuple[Split, ...]:
    """Split the images into folds for cross-validation (stratified).

    Each image is a test image in exactly one split and a training image in all others. The result depends only on the
    seed and the paths.

    Args:
        dataset: what to split.
        seed: of NumPy's default generator.
        count: number of folds, at least 2.

    Returns:
        One split per fold, without validation images.

    Raises:
        DataError: fewer than 2 folds, or a class with fewer images than folds.
    """
    generator = np.random.default_rng(seed)
    test_paths: list[list[str]] = [[] for _ in range(count)]
    for label, name in enumerate(dataset.classes):
        paths = dataset.paths_of_class(label)
        if count < 2 or len(paths) < count:
            raise DataError(
                f"Class {name} has {len(paths)} images; {count} folds are not possible. "
                f"Choose from 2 to {len(paths)} folds."
            )
        for position, index in enumerate(generator.permutation(len(paths))):
            # each class starts at another fold, so that the remainders of all classes do not go into the same folds
            test_paths[(position + label) % count].append(paths[index])
    return tuple(
        Split(tuple(path for path in dataset.paths if path not in set(test)), (), tuple(sorted(test)))
        for test in test_paths
    )


@lru_cache(maxsize=1)
def load_dataset(dataset: Dataset, side: int, interpolation: Interpolation) -> NDArray[np.uint8]:
    """Decode all images of a data set as `load_images` does.

    The result is cached, so that all folds of an evaluation decode the images once, and is therefore read-only.
    """
    images = load_images(dataset.folder, dataset.paths, side, interpolation)
    images.setflags(write=False)
    return images


def load_images(
    folder: Path, paths: Sequence[str], side: int, interpolation: Interpolation, description: str = "Decoding"
) -> NDArray[np.uint8]:
    """Read images with the same `decode` and `resize` as the server.

    Args:
        folder: folder that the paths are relative to.
        paths: paths of the images.
        side: width and height of the result, in pixels.
        interpolation: "bilinear" or "bicubic".
        description: text before the progress bar.

    Returns:
        uint8 [len(paths), side, side, 3], RGB, 0 to 255, in the order of the paths.

    Raises:
        DataError: an image cannot be decoded; the message names it.
    """

    def load(path: str) -> NDArray[np.uint8]:
        return read_image(read_file(folder / path), folder / path, side, interpolation)

    images = np.empty((len(paths), side, side, 3), dtype=np.uint8)
    with ThreadPoolExecutor() as pool:  # Pillow releases the GIL while it decodes
        for index, image in enumerate(progress(pool.map(load, paths), description, len(paths))):
            images[index] = image
    return images


def read_file(path: Path) -> bytes:
    """Read the file of an image.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error


def read_image(data: bytes, name: object, side: int, interpolation: Interpolation) -> NDArray[np.uint8]:
    """Read an image from its file's bytes, as `load_images` does: uint8 [side, side, 3].

    Raises:
        DataError: it cannot be decoded; the message contains `name`.
    """
    try:
        return resize(decode(data, LIMITS, side), side, interpolation)
    except RequestError as error:
        raise unreadable(name, error) from error


def unreadable(name: object, error: Exception) -> DataError:
    """Return the error that an image cannot be read or decoded."""
    return DataError(f"{name} cannot be decoded ({error}); repair or remove it.")


def files_digest(folder: Path, paths: Sequence[str]) -> str:
    """Compute `total_digest` of some files in a folder."""
    return total_digest(paths, _file_digests(folder, paths))


def _file_digests(folder: Path, paths: Sequence[str]) -> list[str]:
    return [hashlib.sha256((folder / path).read_bytes()).hexdigest() for path in paths]


def total_digest(paths: Sequence[str], digests: Iterable[str]) -> str:
    r"""Compute the SHA-256 of the lines "PATH\0SHA256-OF-THE-FILE\n"."""
    total = hashlib.sha256()
    for path, digest in zip(paths, digests, strict=True):
        total.update(f"{path}\0{digest}\n".encode())
    return total.hexdigest()
