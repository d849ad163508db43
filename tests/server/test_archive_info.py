import dataclasses
import os
import zipfile
from pathlib import Path

import pytest

from tests.support import archives
from tests.support.metadata import METADATA
from vinegrape_handler.errors import ArchiveError
from vinegrape_handler.metadata import METADATA_FILE
from vinegrape_server.archive_info import ArchiveInfo


def test_an_archive(tmp_path):
    path = archives.write(tmp_path / "vinegrape.mar", backends=("onnx_int8", "torchscript"))
    assert ArchiveInfo.read(path) == ArchiveInfo(path, METADATA, ("onnx_int8", "torchscript"))


def test_its_path_is_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    archives.write(tmp_path / "vinegrape.mar")
    assert ArchiveInfo.read(Path("vinegrape.mar")).path == tmp_path / "vinegrape.mar"


def test_the_committed_archive():
    info = ArchiveInfo.read(Path(__file__).parents[2] / "model_store" / "vinegrape.mar")
    assert info.backends == ("onnx_int8", "torchscript")
    assert info.metadata.name == "vinegrape"
    assert info.path.stat().st_size <= 15_000_000


def test_none(tmp_path):
    with pytest.raises(ArchiveError, match=rf"There is no archive {tmp_path}/none\.mar.*--archive FILE"):
        ArchiveInfo.read(tmp_path / "none.mar")


def test_a_folder(tmp_path):
    with pytest.raises(ArchiveError, match="There is no archive"):
        ArchiveInfo.read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 and nothing more"])
def test_no_zip(tmp_path, content):
    path = tmp_path / "vinegrape.mar"
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match="is not a vinegrape archive"):
        ArchiveInfo.read(path)


def test_half_an_archive(tmp_path):
    path = archives.write(tmp_path / "vinegrape.mar")
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(ArchiveError, match="is not a vinegrape archive"):
        ArchiveInfo.read(path)


def test_damaged_metadata(tmp_path):
    """Packed as `vinegrape archive` packs it; its bytes then blanked."""
    path = tmp_path / "vinegrape.mar"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(METADATA_FILE, METADATA.to_json())
    data = bytearray(path.read_bytes())
    data[60:100] = b"\xff" * 40
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match="is not a vinegrape archive"):
        ArchiveInfo.read(path)


def test_another_models_archive(tmp_path):
    path = tmp_path / "resnet.mar"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", "{}")
    with pytest.raises(ArchiveError, match=r"resnet\.mar is not a vinegrape archive.*metadata\.json"):
        ArchiveInfo.read(path)


def test_another_format_version(tmp_path):
    newer = METADATA.to_json().replace('"format_version": 1', '"format_version": 2')
    path = archives.write(tmp_path / "vinegrape.mar", files={METADATA_FILE: newer})
    with pytest.raises(ArchiveError, match="has format_version 2; this code reads 1"):
        ArchiveInfo.read(path)


def test_no_self_check(tmp_path):
    path = archives.write(tmp_path / "vinegrape.mar", dataclasses.replace(METADATA, self_check=()))
    with pytest.raises(ArchiveError, match="carries no self-check pictures"):
        ArchiveInfo.read(path)
