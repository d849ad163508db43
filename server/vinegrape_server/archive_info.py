"""What `vinegrape serve` needs to know about an archive before TorchServe loads it."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from vinegrape_handler.errors import ArchiveError
from vinegrape_handler.metadata import METADATA_FILE, Metadata
from vinegrape_handler.weights import BACKENDS, WEIGHTS_FILES, Backend

_PAGE = "vinegrape_handler/page.html"


@dataclass(frozen=True)
class ArchiveInfo:
    """A model archive on disk.

    Attributes:
        path: absolute path of the file.
        metadata: metadata of the model.
        backends: the backends whose weights the archive holds.
        packed_bytes: size of the file, in bytes.
        unpacked_bytes: size of the files in the archive together, in bytes.
        has_page: whether its handler sends the web page.
    """

    path: Path
    metadata: Metadata
    backends: tuple[Backend, ...]
    packed_bytes: int = 0
    unpacked_bytes: int = 0
    has_page: bool = True

    @classmethod
    def read(cls, path: Path) -> ArchiveInfo:
        """Read an archive without unpacking it.

        Raises:
            ArchiveError: the file is missing, is not made by `vinegrape archive`, or has no self-check images.
        """
        if not path.is_file():
            raise ArchiveError(
                f"There is no archive {path.absolute()}. Run the command in the project's folder, set --archive FILE, "
                "or create the archive: make model DATA=... WEIGHTS=..."
            )
        try:
            with zipfile.ZipFile(path) as archive:
                sizes = {file.filename: file.file_size for file in archive.infolist()}
                metadata = Metadata.from_json(archive.read(METADATA_FILE))
        except (zipfile.BadZipFile, zlib.error, KeyError) as error:
            raise ArchiveError(
                f"{path} is not a vinegrape archive ({error}). Create one with: vinegrape archive"
            ) from error
        if not metadata.self_check:
            raise ArchiveError(f"{path} has no self-check images. Create it again with: vinegrape archive")
        backends = tuple(backend for backend in BACKENDS if WEIGHTS_FILES[backend] in sizes)
        return cls(path.absolute(), metadata, backends, path.stat().st_size, sum(sizes.values()), _PAGE in sizes)
