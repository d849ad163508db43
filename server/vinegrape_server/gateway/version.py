"""The version of the served model, which a swap changes while the gateway runs."""

from __future__ import annotations

from pathlib import Path


class Version:
    """The version in a file.

    Args:
        path: of the file.

    Attributes:
        value: the version, as last read.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self.read()

    def read(self) -> None:
        """Read the file again."""
        self.value = self._path.read_text().strip()
