"""Names of files that publishing needs too, without their modules' imports, and writing files atomically."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CARD_FILE = "MODEL_CARD.md"
REPORT_FILE = "evaluation.json"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Provide a temporary path next to `path`, and rename it to `path` when the block ends without an exception.

    So an interrupted command leaves the old file or the new one, never a part of it.
    """
    partial = path.with_name(f".{path.name}")
    yield partial
    partial.replace(path)
