"""Archives made by code: all that `vinegrape serve` reads of one, and no weights that work."""

import zipfile
from pathlib import Path

from tests.support.metadata import METADATA
from vinegrape_handler.metadata import METADATA_FILE, SELF_CHECK_FOLDER
from vinegrape_handler.weights import BACKENDS, WEIGHTS_FILES
from vinegrape_server.archive_info import ArchiveInfo

PICTURE = b"the bytes of a picture"


def write(path, metadata=METADATA, backends=BACKENDS, files=None) -> Path:
    files = {
        METADATA_FILE: metadata.to_json(),
        **{WEIGHTS_FILES[backend]: b"" for backend in backends},
        **{f"{SELF_CHECK_FOLDER}/{check.file}": PICTURE for check in metadata.self_check},
        **(files or {}),
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def info(*backends) -> ArchiveInfo:
    return ArchiveInfo(Path("/store/vinegrape.mar"), METADATA, backends)
