"""Read what an offline run of Weights & Biases has stored in its `.wandb` file."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

# The file is a LevelDB log: a header of 7 bytes, then blocks, each with chunks of a record
_HEADER, _BLOCK = 7, 32768
_CHUNK = struct.Struct("<IHB")  # CRC, length, type
_FULL, _LAST = 1, 4


@dataclass(frozen=True)
class StoredArtifact:
    """An artifact that a run has logged.

    Attributes:
        name, type: of the artifact.
        metadata: of the artifact.
        files: path in the artifact to the bytes that will be uploaded.
    """

    name: str
    type: str
    metadata: dict[str, Any]
    files: dict[str, bytes]


@dataclass(frozen=True)
class StoredRun:
    """What one `.wandb` file holds.

    Attributes:
        project, job_type: of the run.
        config, summary: names to values.
        artifacts: by type.
        history: logged rows.
    """

    project: str
    job_type: str
    config: dict[str, Any]
    summary: dict[str, Any]
    artifacts: dict[str, StoredArtifact]
    history: list[dict[str, Any]]


def stored_run(folder: Path) -> StoredRun:
    """Read the only offline run in the folder `wandb` of a folder."""
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    return _read(path)


def _read(path: Path) -> StoredRun:
    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    artifacts: dict[str, StoredArtifact] = {}
    history: list[dict[str, Any]] = []
    run = None
    for record in _complete_records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = run or record.run
            config |= _values(record.run.config.update)
        elif kind == "config":
            config |= _values(record.config.update)
        elif kind == "summary":
            summary |= _values(record.summary.update)
        elif kind == "history":
            history.append(_values(record.history.item))
        elif kind == "artifact":
            artifacts[record.artifact.type] = _artifact(record.artifact)
    assert run is not None
    return StoredRun(run.project, run.job_type, config, summary, artifacts, history)


def _artifact(artifact: Any) -> StoredArtifact:
    files = {entry.path: Path(entry.local_path).read_bytes() for entry in artifact.manifest.contents}
    return StoredArtifact(artifact.name, artifact.type, json.loads(artifact.metadata or "{}"), files)


def _values(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def _complete_records(path: Path) -> list[Record]:
    """Read all records. W&B's own process writes the file, and the last record is "exit"."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        records = list(_records(path.read_bytes()))
        if records and records[-1].WhichOneof("record_type") == "exit":
            return records
        time.sleep(0.05)
    raise AssertionError(f"{path} has no end: {[record.WhichOneof('record_type') for record in records]}")


def _records(data: bytes) -> Iterator[Record]:
    position, message = _HEADER, b""
    while position + _CHUNK.size <= len(data):
        if _BLOCK - position % _BLOCK < _CHUNK.size:  # no chunk begins at the end of a block
            position += _BLOCK - position % _BLOCK
            continue
        _, length, kind = _CHUNK.unpack_from(data, position)
        if kind == 0:
            return
        position += _CHUNK.size
        message += data[position : position + length]
        position += length
        if kind in (_FULL, _LAST):
            yield Record.FromString(message)
            message = b""
