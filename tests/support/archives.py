"""Archives that `vinegrape serve` accepts until it starts TorchServe: their weights are empty."""

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.support.metadata import METADATA
from vinegrape_handler.metadata import METADATA_FILE, SELF_CHECK_FOLDER, Metadata
from vinegrape_handler.weights import BACKENDS, WEIGHTS_FILES, Backend
from vinegrape_server.archive_info import ArchiveInfo
from vinegrape_server.plan import Plan, make_plan
from vinegrape_server.settings import ServeSettings


def write(
    path: Path,
    metadata: Metadata = METADATA,
    backends: Iterable[Backend] = BACKENDS,
    files: Mapping[str, str] | None = None,
) -> Path:
    """Write an archive. `files` adds or replaces files by name."""
    contents = {
        METADATA_FILE: metadata.to_json(),
        **{WEIGHTS_FILES[backend]: "" for backend in backends},
        **{f"{SELF_CHECK_FOLDER}/{check.file}": "" for check in metadata.self_check},
        **(files or {}),
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def info(*backends: Backend) -> ArchiveInfo:
    """The description of an archive that is not on disk."""
    return ArchiveInfo(Path("/store/vinegrape.mar"), METADATA, backends)


def plan(gpus: int = 0, **values: object) -> Plan:
    """The plan of a server with 3 workers and these settings, on a machine with torch and this number of GPUs."""
    settings = ServeSettings.from_values({"workers": 3, **values})
    return make_plan(settings, info("onnx_int8", "torchscript"), gpus, torch_installed=True)
