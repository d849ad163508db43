"""Archives of a hand-made model, with the code of this installation."""

import dataclasses
import json
import random
import shutil
import subprocess
import sys
import zipfile

import pytest

from tests.conftest import ROOT
from tests.support.tiny_archive import BLACK, RED, probabilities
from vinegrape_handler.errors import ArchiveError
from vinegrape_handler.metadata import METADATA_FILE, Metadata, SelfCheck
from vinegrape_handler.weights import WEIGHTS_FILES
from vinegrape_training.export import archive as archive_module
from vinegrape_training.export.archive import build


def names(path):
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


def read_metadata(path):
    with zipfile.ZipFile(path) as archive:
        return Metadata.from_json(archive.read(METADATA_FILE))


@pytest.fixture(scope="module")
def built(tiny_export, tmp_path_factory):
    """An archive with the int8 file of the hand-made model."""
    path = tmp_path_factory.mktemp("built") / "vinegrape.mar"
    build(tiny_export, path, ["onnx_int8"])
    return path


def test_the_same_export_gives_the_same_bytes(tiny_export, built, tmp_path):
    build(tiny_export, tmp_path / "again.mar", ["onnx_int8"])
    assert (tmp_path / "again.mar").read_bytes() == built.read_bytes()


def test_an_archive_holds_code_weights_metadata_and_self_check_images(built):
    files = names(built)
    assert {"vinegrape_entry.py", "vinegrape_handler/handler.py", "vinegrape_handler/page.html", METADATA_FILE} <= files
    assert "self_check/0.png" in files
    assert files & set(WEIGHTS_FILES.values()) == {WEIGHTS_FILES["onnx_int8"]}
    assert not any("__pycache__" in name for name in files)


def test_the_default_weights_are_int8_and_torchscript(tiny_export, tmp_path):
    export = shutil.copytree(tiny_export, tmp_path / "export")
    (export / "model.torchscript.pt").write_bytes(b"not loaded by build")
    build(export, tmp_path / "vinegrape.mar")
    weights = {name for name in names(tmp_path / "vinegrape.mar") if name.startswith("model.")}
    assert weights == {"model.int8.onnx", "model.torchscript.pt"}


def test_the_version_depends_on_the_content(tiny_export, built, tmp_path):
    other = build(tiny_export, tmp_path / "other.mar", ["onnx_fp32"])
    version = read_metadata(built).version
    assert len(version) == 12
    assert version != other.version
    with zipfile.ZipFile(built) as archive:
        assert json.loads(archive.read("MAR-INF/MANIFEST.json"))["model"]["modelVersion"] == version


def test_repacking_an_archive_gives_the_same_archive(built, tmp_path):
    build(built, tmp_path / "again.mar", ["onnx_int8"])
    assert (tmp_path / "again.mar").read_bytes() == built.read_bytes()


def test_self_check_probabilities_are_computed_only_on_request(tiny_export, tmp_path):
    export = shutil.copytree(tiny_export, tmp_path / "wrong")
    metadata = Metadata.read(export)
    wrong = tuple(SelfCheck(check.file, {"onnx_int8": [0.5, 0.5]}) for check in metadata.self_check)
    (export / METADATA_FILE).write_text(dataclasses.replace(metadata, self_check=wrong).to_json())
    kept = build(export, tmp_path / "kept.mar", ["onnx_int8"])
    recorded = build(export, tmp_path / "recorded.mar", ["onnx_int8"], record_self_check=True)
    assert kept.self_check == wrong
    red, black = (check.probabilities["onnx_int8"] for check in recorded.self_check)
    assert red == pytest.approx(probabilities(RED), abs=1e-5)
    assert black == pytest.approx(probabilities(BLACK), abs=1e-5)


def test_missing_weights_are_refused(tiny_export, tmp_path):
    with pytest.raises(ArchiveError, match=r"does not hold the weights torchscript. It holds onnx_int8, onnx_fp32"):
        build(tiny_export, tmp_path / "vinegrape.mar")


def test_a_source_that_is_no_export_and_no_archive_is_refused(tmp_path):
    (tmp_path / "note.txt").write_text("hello")
    with pytest.raises(ArchiveError, match="neither the folder of an export nor an archive"):
        build(tmp_path / "note.txt", tmp_path / "target.mar")
    with pytest.raises(ArchiveError, match=r"metadata\.json"):
        build(tmp_path, tmp_path / "target.mar")


def test_an_archive_may_have_any_size(tiny_export, tmp_path):
    """The int8 file of a ResNet-50 has 25 MB. Random bytes cannot be compressed."""
    export = shutil.copytree(tiny_export, tmp_path / "export")
    with (export / WEIGHTS_FILES["onnx_int8"]).open("ab") as weights:
        weights.write(random.Random(0).randbytes(25_000_000))
    build(export, tmp_path / "vinegrape.mar", ["onnx_int8"])
    assert (tmp_path / "vinegrape.mar").stat().st_size > 25_000_000


def test_an_entry_file_that_cannot_be_imported_is_refused(tiny_export, tmp_path, monkeypatch):
    broken = tmp_path / "vinegrape_entry.py"
    broken.write_text("import a_module_that_does_not_exist\n")
    monkeypatch.setattr(archive_module, "_entry_file", lambda: broken)
    with pytest.raises(ArchiveError, match="a_module_that_does_not_exist"):
        build(tiny_export, tmp_path / "vinegrape.mar", ["onnx_int8"])
    assert not (tmp_path / "vinegrape.mar").exists()


def test_the_archived_package_is_imported_instead_of_the_installed_one(built, tmp_path):
    with zipfile.ZipFile(built) as archive:
        archive.extractall(tmp_path / "model")
    code = "import vinegrape_entry, vinegrape_handler; print(vinegrape_handler.__file__)"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "model", capture_output=True, text=True)
    assert result.stdout.strip().startswith(str(tmp_path / "model"))


def test_the_committed_archive_is_small_enough_for_git():
    committed = ROOT / "model_store" / "vinegrape.mar"
    assert committed.stat().st_size <= 15_000_000
    assert {"model.int8.onnx", "model.torchscript.pt"} <= names(committed)
