"""The data set from its public home into a folder a class."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from vinegrape_training.data.manifest import class_names, is_image
from vinegrape_training.errors import FetchError

KAGGLE_NAME = "muratkokludataset/grapevine-leaves-image-dataset"

Download = Callable[[str], str]


def fetch(target: Path, download: Download | None = None) -> int:
    """Download the data set and copy the images of its five classes to `target`, a folder a class.

    Nothing is left at `target` unless all of it arrived.

    Args:
        target: does not exist yet, or is empty.
        download: takes the data set's name on Kaggle and returns the folder that it was unpacked to; kagglehub's
            by default.

    Returns:
        How many images were copied.

    Raises:
        FetchError: `target` has something in it, or the download failed.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FetchError(
            f"{target} exists and is not an empty folder. See what it holds with `vinegrape data check {target}`, "
            "or name another with --to."
        )
    try:
        source = Path((download or _kagglehub_download())(KAGGLE_NAME))
    except Exception as error:  # kagglehub lets the errors of everything below it through
        raise FetchError(f"The download failed: {_first_line(error)}\n{by_hand(target)}") from error
    return _copy(find_classes(source, target), target)


def find_classes(source: Path, target: Path) -> list[Path]:
    """The five class folders in an unpacked download, wherever they lie in it; `FetchError` if they do not."""
    names = class_names()
    for folder in [source, *sorted(path for path in source.rglob("*") if path.is_dir())]:
        if all((folder / name).is_dir() for name in names):
            return [folder / name for name in names]
    raise FetchError(f"What came has no folder with {', '.join(names)} in it: {source}\n{by_hand(target)}")


def by_hand(target: Path) -> str:
    """What to do when the download does not work."""
    names = ", ".join(class_names())
    return (
        "By hand: download the data set from its page on Kaggle,\n"
        f"  https://www.kaggle.com/datasets/{KAGGLE_NAME}\n"
        f"unzip it, put its five folders ({names}) into\n"
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
    """Copy the images beside the target and rename in the end, so that a broken copy is never taken for whole."""
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
