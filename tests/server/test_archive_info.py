import dataclasses
import os
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support import archives
from tests.support.metadata import METADATA
from vinegrape_handler.errors import ArchiveError
from vinegrape_handler.metadata import METADATA_FILE
from vinegrape_server.archive_info import ArchiveInfo


def test_metadata_and_backends_are_read(tmp_path):
    path = archives.write(tmp_path / "vinegrape.mar", backends=("onnx_int8", "torchscript"))
    info = ArchiveInfo.read(path)
    assert (info.path, info.metadata, info.backends) == (path, METADATA, ("onnx_int8", "torchscript"))


def test_the_sizes_of_the_archive_and_of_its_files_are_read(tmp_path):
    plain = ArchiveInfo.read(archives.write(tmp_path / "plain.mar"))
    larger = ArchiveInfo.read(archives.write(tmp_path / "larger.mar", files={"text": "x" * 1000}))
    assert larger.packed_bytes == (tmp_path / "larger.mar").stat().st_size
    assert larger.unpacked_bytes == plain.unpacked_bytes + 1000


@pytest.mark.parametrize("has_page", [True, False])
def test_an_archive_has_a_page_if_its_handler_has_the_file(tmp_path, has_page):
    files = {"vinegrape_handler/page.html": "<!doctype html>"} if has_page else {}
    assert ArchiveInfo.read(archives.write(tmp_path / "vinegrape.mar", files=files)).has_page == has_page


def test_the_path_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    archives.write(tmp_path / "vinegrape.mar")
    assert ArchiveInfo.read(Path("vinegrape.mar")).path == tmp_path / "vinegrape.mar"


def test_the_committed_archive_has_int8_and_torchscript_and_at_most_15_mb():
    info = ArchiveInfo.read(ROOT / "model_store" / "vinegrape.mar")
    assert info.backends == ("onnx_int8", "torchscript")
    assert info.metadata.name == "vinegrape"
    assert info.path.stat().st_size <= 15_000_000


def test_a_missing_file_is_reported_with_its_path(tmp_path):
    with pytest.raises(ArchiveError, match=rf"There is no archive {tmp_path}/none\.mar.*--archive FILE"):
        ArchiveInfo.read(tmp_path / "none.mar")


def test_a_folder_is_no_archive(tmp_path):
    with pytest.raises(ArchiveError, match="There is no archive"):
        ArchiveInfo.read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 and nothing more"])
def test_a_file_that_is_no_zip_is_refused(tmp_path, content):
    path = tmp_path / "vinegrape.mar"
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match="is not a vinegrape archive"):
        ArchiveInfo.read(path)


def test_a_truncated_archive_is_refused(tmp_path):
    path = archives.write(tmp_path / "vinegrape.mar")
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(ArchiveError, match="is not a vinegrape archive"):
        ArchiveInfo.read(path)


def test_damaged_metadata_is_refused(tmp_path):
    """The metadata is compressed, as in a real archive; then some of its bytes are overwritten."""
    path = tmp_path / "vinegrape.mar"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(METADATA_FILE, METADATA.to_json())
    data = bytearray(path.read_bytes())
    data[60:100] = b"\xff" * 40
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match="is not a vinegrape archive"):
        ArchiveInfo.read(path)


def test_another_models_archive_is_refused(tmp_path):
    path = tmp_path / "resnet.mar"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", "{}")
    with pytest.raises(ArchiveError, match=r"resnet\.mar is not a vinegrape archive.*metadata\.json"):
        ArchiveInfo.read(path)


def test_another_format_version_is_refused(tmp_path):
    newer = METADATA.to_json().replace('"format_version": 1', '"format_version": 2')
    path = archives.write(tmp_path / "vinegrape.mar", files={METADATA_FILE: newer})
    with pytest.raises(ArchiveError, match="format_version 2"):
        ArchiveInfo.read(path)


def test_an_archive_without_self_check_is_refused(tmp_path):
    path = archives.write(tmp_path / "vinegrape.mar", dataclasses.replace(METADATA, self_check=()))
    with pytest.raises(ArchiveError, match="has no self-check images"):
        ArchiveInfo.read(path)
