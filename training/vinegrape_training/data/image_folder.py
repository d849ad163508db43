"""A folder that holds one folder of images per class, as in torchvision's `ImageFolder`."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path

from vinegrape_training.errors import DataError

_logger = logging.getLogger(__name__)

SHARDS_INDEX = "shards.json"
"""The index of a folder of shards, see `data.shards`."""

_MOST_NAMES = 5  # in the warning about what is passed over

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def is_image(path: Path) -> bool:
    """Whether a path is a file with an image suffix and not hidden (archive tools leave "._NAME.png" behind)."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def list_images(folder: Path) -> dict[str, list[Path]]:
    """List the images of each class.

    Everything else is passed over: files outside the class folders, hidden files and folders, files with other
    suffixes, and folders in class folders. A warning is logged that counts and names them, once per process.

    Args:
        folder: holds one folder of images per class.

    Returns:
        Class name to its images, which may be none; both sorted by name.

    Raises:
        DataError: `folder` is not a folder, or holds shards.
    """
    if (folder / SHARDS_INDEX).is_file():
        raise DataError(
            f"{folder} holds shards, which only `vinegrape train data=shards` reads. Give the folder of images that "
            "they were made from."
        )
    if not folder.is_dir():
        raise DataError(
            f"{folder} is not a folder. Give a folder that holds one folder of images per class; "
            f"`vinegrape data fetch --to {folder}` downloads the data set."
        )
    content = sorted(folder.iterdir())
    classes = [path for path in content if path.is_dir() and not path.name.startswith(".")]
    images: dict[str, list[Path]] = {path.name: [] for path in classes}
    passed_over = [path for path in content if path not in classes]
    for path in (path for folder_of_class in classes for path in sorted(folder_of_class.iterdir())):
        (images[path.parent.name] if is_image(path) else passed_over).append(path)
    if passed_over:
        _warn_once(_describe(folder, sorted(passed_over)))
    return images


def _describe(folder: Path, passed_over: list[Path]) -> str:
    names = [path.relative_to(folder).as_posix() + ("/" if path.is_dir() else "") for path in passed_over]
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return (
        f"{folder}: {len(names)} files or folders are not used: {', '.join(names[:_MOST_NAMES])}{more}. Images are "
        f"files in the folder of a class, with the suffix {', '.join(IMAGE_SUFFIXES)}."
    )


@cache
def _warn_once(text: str) -> None:
    _logger.warning(text)
