"""Read an archive, or copy it with one file changed."""

import zipfile
from pathlib import Path

from vinegrape_handler.metadata import METADATA_FILE, SELF_CHECK_FOLDER, Metadata

ENTRY_FILE = "vinegrape_entry.py"


def read_metadata(archive: Path) -> Metadata:
    with zipfile.ZipFile(archive) as opened:
        return Metadata.from_json(opened.read(METADATA_FILE))


def read_self_check(archive: Path) -> tuple[Metadata, list[bytes]]:
    """Read the metadata and the images of its self-check, in their order."""
    metadata = read_metadata(archive)
    with zipfile.ZipFile(archive) as opened:
        return metadata, [opened.read(f"{SELF_CHECK_FOLDER}/{check.file}") for check in metadata.self_check]


def with_file(archive: Path, folder: Path, name: str, content: str) -> Path:
    """Copy an archive to a folder, and replace the content of one file."""
    path = folder / "changed.mar"
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(path, "w") as target:
        for file in source.namelist():
            target.writestr(file, content if file == name else source.read(file))
    return path


def with_entry(archive: Path, folder: Path, code: str) -> Path:
    """Copy an archive to a folder, and replace its handler by the only class that `code` defines."""
    return with_file(archive, folder, ENTRY_FILE, code)
