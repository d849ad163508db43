"""Download of the data set from Kaggle into a folder with one folder per class."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from vinegrape_training.data.image_folder import is_image
from vinegrape_training.data.manifest import class_names
from vinegrape_training.errors import FetchError

KAGGLE_NAME = "muratkokludataset/grapevine-leaves-image-dataset"

Download = Callable[[str], str]


def fetch(target: Path, download: Download | None = None) -> int:
    """Download the data set and copy its images to `target`, one folder per class.

    If anything fails, `target` is left as it was.

    Args:
        target: folder that does not exist yet or is empty.
        download: takes the data set's name on Kaggle, returns the folder with the unpacked files. Default: kagglehub.

    Returns:
        The number of copied images.

    Raises:
        FetchError: `target` is not empty, or the download failed.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FetchError(
            f"{target} exists and is not an empty folder. Compare its images with the data set: "
            f"`vinegrape data check {target}`; or choose another folder with --to."
        )
    try:
        source = Path((download or _kagglehub_download())(KAGGLE_NAME))
    except Exception as error:  # kagglehub passes on the exceptions of all its dependencies
        raise FetchError(f"The download failed: {_first_line(error)}\n{by_hand(target)}") from error
    return _copy(find_classes(source, target), target)


def find_classes(source: Path, target: Path) -> list[Path]:
    """Find the five class folders at any depth of an unpacked download.

    Args:
        source: folder with the unpacked download.
        target: folder that the error message names.

    Raises:
        FetchError: no folder in `source` holds all five.
    """
    names = class_names()
    for folder in [source, *sorted(path for path in source.rglob("*") if path.is_dir())]:
        if all((folder / name).is_dir() for name in names):
            return [folder / name for name in names]
    raise FetchError(f"The download has no folder that holds {', '.join(names)}; see {source}.\n{by_hand(target)}")


def by_hand(target: Path) -> str:
    """Explain how to get the data set without this command."""
    names = ", ".join(class_names())
    return (
        "By hand: download the data set from its page on Kaggle,\n"
        f"  https://www.kaggle.com/datasets/{KAGGLE_NAME}\n"
        f"unzip it, copy its five folders ({names}) into\n"
        f"  {target}\n"
        f"and run: vinegrape data check {target}"
    )


def _kagglehub_download() -> Download:
    try:
        import kagglehub
    except ImportError as error:
        raise FetchError("kagglehub is not installed; install it with: pip install kagglehub") from error

    def download(name: str) -> str:
        return str(kagglehub.dataset_download(name))

    return download


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _copy(classes: list[Path], target: Path) -> int:
    """Copy the images to a temporary folder and rename it at the end, so that `target` is never incomplete."""
    target = target.resolve()
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    copied = 0
    for folder in classes:
        (partial / folder.name).mkdir(parents=True)
        for image in sorted(folder.iterdir()):
            if is_image(image):
                shutil.copyfile(image, partial / folder.name / image.name)
                copied += 1
    partial.replace(target)
    return copied
