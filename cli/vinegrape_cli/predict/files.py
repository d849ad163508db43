"""The files that `vinegrape predict` classifies."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path


def find_files(paths: Iterable[Path]) -> Iterator[str]:
    """Yield each file once: those named, and those in the named folders and their subfolders, sorted by name.

    Hidden files and folders inside a folder are left out.
    """
    found = set()
    for path in paths:
        for file in _files_in(path) if path.is_dir() else (str(path),):
            if file not in found:
                found.add(file)
                yield file


def _files_in(folder: Path) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(parent, name)
            if not name.startswith(".") and path.is_file():
                yield str(path)
