"""A folder of images with which something was wrong."""

from __future__ import annotations

import hashlib
from pathlib import Path


class Failures:
    """Saves images, each with a text of what was wrong and how to try it again.

    Args:
        folder: where the images are saved. It is created when there is one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, data: bytes, problem: str) -> Path:
        """Save an image; return its path."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{hashlib.sha256(data).hexdigest()[:16]}.bin"
        path.write_bytes(data)
        path.with_suffix(".txt").write_text(f"{problem}\n\nTry it again: vinegrape fuzz {path}\n", encoding="utf-8")
        return path

    def list(self) -> list[tuple[Path, str]]:
        """Return the saved images with what was wrong, by name."""
        texts = sorted(self.folder.glob("*.txt"))
        return [(path.with_suffix(".bin"), path.read_text(encoding="utf-8").partition("\n")[0]) for path in texts]
