"""What `vinegrape serve` must know of an archive before TorchServe sees it."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from vinegrape_handler.errors import ArchiveError
from vinegrape_handler.metadata import METADATA_FILE, Metadata
from vinegrape_handler.weights import BACKENDS, WEIGHTS_FILES, Backend


@dataclass(frozen=True)
class ArchiveInfo:
    """One archive on disk.

    Attributes:
        path: absolute.
        metadata: its model.
        backends: whose weights it holds.
    """

    path: Path
    metadata: Metadata
    backends: tuple[Backend, ...]

    @classmethod
    def read(cls, path: Path) -> ArchiveInfo:
        """Read an archive without unpacking it.

        Raises:
            ArchiveError: there is none, or it is not one of ours.
        """
        if not path.is_file():
            raise ArchiveError(
                f"There is no archive {path.absolute()}. Run from the project's folder, give --archive FILE, "
                "or make one: make model DATA=... WEIGHTS=..."
            )
        try:
            with zipfile.ZipFile(path) as archive:
                names = set(archive.namelist())
                metadata = Metadata.from_json(archive.read(METADATA_FILE))
                if not metadata.self_check:
                    raise ArchiveError(f"{path} carries no self-check pictures. Make it again: vinegrape archive")
        except (zipfile.BadZipFile, zlib.error, KeyError) as error:
            raise ArchiveError(
                f"{path} is not a vinegrape archive ({error}). Make one with: vinegrape archive"
            ) from error
        held = tuple(backend for backend in BACKENDS if WEIGHTS_FILES[backend] in names)
        return cls(path.absolute(), metadata, held)
