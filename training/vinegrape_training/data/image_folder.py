"""A folder that holds one folder of images per class, as in torchvision's `ImageFolder`."""

from __future__ import annotations

from pathlib import Path

from vinegrape_training.errors import DataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def is_image(path: Path) -> bool:
    """Whether a path is a file with an image suffix and not hidden (archive tools leave "._NAME.png" behind)."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def list_images(folder: Path) -> dict[str, list[Path]]:
    """List the images of each class.

    Hidden files, hidden folders and files with other suffixes are ignored.

    Args:
        folder: holds one folder of images per class.

    Returns:
        Class name to its images, which may be none; both sorted by name.

    Raises:
        DataError: `folder` is not a folder.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder} is not a folder. Give a folder that holds one folder of images per class; "
            f"`vinegrape data fetch --to {folder}` downloads the data set."
        )
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return {path.name: sorted(image for image in path.iterdir() if is_image(image)) for path in classes}
