"""Pack an export into the `.mar` archive that TorchServe loads. The same inputs give the same bytes."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from model_archiver.model_archiver_config import ModelArchiverConfig
from model_archiver.model_packaging import generate_model_archive

import vinegrape_handler
from vinegrape_handler.errors import ArchiveError
from vinegrape_handler.metadata import METADATA_FILE, SELF_CHECK_FOLDER, Metadata
from vinegrape_handler.networks import load_network
from vinegrape_handler.settings import WorkerSettings
from vinegrape_handler.weights import DEFAULT_WEIGHTS, WEIGHTS_FILES, Backend, available_backends
from vinegrape_training.export import self_check

_ENTRY_MODULE = "vinegrape_entry"
_MANIFEST = "MAR-INF/MANIFEST.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip file can store


def build(
    source: Path, target: Path, weights: Sequence[Backend] = DEFAULT_WEIGHTS, *, record_self_check: bool = False
) -> Metadata:
    """Build an archive from the installed handler code and the weights of an export.

    Args:
        source: folder of an export, or an archive, whose weights are then packed with the installed code.
        target: the `.mar` to write. Its folder is created; an existing file is replaced.
        weights: the weights files to include.
        record_self_check: compute the expected probabilities of the self-check images with these weights, instead of
            keeping those of the source.

    Returns:
        The archive's metadata. Its version is a digest of the archive's content.

    Raises:
        ArchiveError: the source is neither an export nor an archive, or lacks the weights; or the code cannot be
            imported.
    """
    with tempfile.TemporaryDirectory(prefix="vinegrape-archive-") as temporary:
        content, output = Path(temporary) / "content", Path(temporary) / "output"
        output.mkdir()
        with opened(source) as export:
            metadata = _lay_out(export, content, weights, record_self_check)
        _import_entry(content)
        archive = _call_archiver(metadata, content, output)
        _fix_times(archive)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(archive, target)
    return metadata


@contextmanager
def opened(source: Path) -> Iterator[Path]:
    """Yield the folder of an export; an archive is unpacked into a temporary folder.

    Raises:
        ArchiveError: `source` is neither.
    """
    if source.is_dir():
        yield source
        return
    if not zipfile.is_zipfile(source):
        raise ArchiveError(
            f"{source} is neither the folder of an export nor an archive. Run: vinegrape export RUN FOLDER"
        )
    with tempfile.TemporaryDirectory(prefix="vinegrape-unpacked-") as temporary:
        with zipfile.ZipFile(source) as archive:
            archive.extractall(temporary)
        yield Path(temporary)


def _lay_out(export: Path, content: Path, weights: Sequence[Backend], record_self_check: bool) -> Metadata:
    """Copy the archive's files to the folder `content`, and set the version in the metadata."""
    metadata = Metadata.read(export)
    missing = set(weights) - set(available_backends(export))
    if missing:
        raise ArchiveError(
            f"{export} does not hold the weights {', '.join(sorted(missing))}. It holds "
            f"{', '.join(available_backends(export)) or 'none'}."
        )
    if record_self_check:
        networks = {backend: load_network(export, backend, WorkerSettings(), "cpu") for backend in weights}
        metadata = self_check.record(metadata, networks, export / SELF_CHECK_FOLDER)
    ignore = shutil.ignore_patterns("__pycache__")
    package = Path(vinegrape_handler.__file__).parent
    shutil.copytree(package, content / package.name, ignore=ignore)
    shutil.copyfile(_entry_file(), content / f"{_ENTRY_MODULE}.py")
    shutil.copytree(export / SELF_CHECK_FOLDER, content / SELF_CHECK_FOLDER)
    for backend in weights:
        shutil.copyfile(export / WEIGHTS_FILES[backend], content / WEIGHTS_FILES[backend])
    (content / METADATA_FILE).write_text(dataclasses.replace(metadata, version="").to_json())
    metadata = dataclasses.replace(metadata, version=_digest(content)[:12])
    (content / METADATA_FILE).write_text(metadata.to_json())
    return metadata


def _entry_file() -> Path:
    spec = importlib.util.find_spec(_ENTRY_MODULE)
    if spec is None or spec.origin is None:
        raise ArchiveError(f"The module {_ENTRY_MODULE} is not installed; install the project: pip install -e .")
    return Path(spec.origin)


def _digest(folder: Path) -> str:
    """Compute the SHA-256 of the names and bytes of all files in a folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _import_entry(content: Path) -> None:
    """Import the entry file as a worker does; TorchServe would report an ImportError only as a missing module."""
    command = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, '.'); import {_ENTRY_MODULE}"]
    result = subprocess.run(command, cwd=content, capture_output=True, text=True, check=False)  # noqa: S603
    if result.returncode:
        raise ArchiveError(
            f"{_ENTRY_MODULE}.py, the entry file, cannot be imported. Repair the code:\n{result.stderr.strip()}"
        )
    for cache in content.rglob("__pycache__"):
        shutil.rmtree(cache)


def _call_archiver(metadata: Metadata, content: Path, folder: Path) -> Path:
    entry = content / f"{_ENTRY_MODULE}.py"
    config = ModelArchiverConfig(
        model_name=metadata.name,
        version=metadata.version,
        handler=str(entry),
        extra_files=str(content),
        export_path=str(folder),
    )
    scratch = folder / "scratch"
    scratch.mkdir()
    # The archiver deletes and writes <temporary folder>/<model name>; another process may use the same path
    before, tempfile.tempdir = tempfile.tempdir, str(scratch)
    try:
        generate_model_archive(config)
    finally:
        tempfile.tempdir = before
    return folder / f"{metadata.name}.mar"


def _fix_times(archive: Path) -> None:
    """Rewrite the archive with sorted files and constant timestamps, so that its bytes are reproducible."""
    with zipfile.ZipFile(archive) as source:
        files = {name: source.read(name) for name in source.namelist()}
    manifest = json.loads(files[_MANIFEST])
    manifest["createdOn"] = "01/01/1980 00:00:00"
    files[_MANIFEST] = json.dumps(manifest, indent=2, sort_keys=True).encode()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        for name in sorted(files):
            target.writestr(zipfile.ZipInfo(name, _EPOCH), files[name], zipfile.ZIP_DEFLATED)
