"""Files that are there whole or not at all, whenever a command is cut off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to; when that is done, and only then, it takes the place of `path`."""
    partial = path.with_name(f".{path.name}")
    yield partial
    partial.replace(path)
