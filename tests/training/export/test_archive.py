import dataclasses
import json
import shutil
import subprocess
import sys
import zipfile

import pytest

from tests.conftest import ROOT
from vinegrape_handler.errors import ArchiveError
from vinegrape_handler.metadata import METADATA_FILE, Metadata, SelfCheck
from vinegrape_training.export import archive as archiving
from vinegrape_training.export.archive import build, opened
from vinegrape_training.export.model_card import write_card

CARD = ROOT / "model_store" / "MODEL_CARD.md"


def names(path):
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


def test_the_same_export_gives_the_same_bytes(export, tmp_path):
    build(export, tmp_path / "one.mar")
    build(export, tmp_path / "two.mar")
    assert (tmp_path / "one.mar").read_bytes() == (tmp_path / "two.mar").read_bytes()


def test_it_carries_code_weights_metadata_and_pictures(export, tmp_path):
    build(export, tmp_path / "vinegrape.mar", ["onnx_int8"])
    held = names(tmp_path / "vinegrape.mar")
    assert {"vinegrape_entry.py", "vinegrape_handler/handler.py", "model.int8.onnx", METADATA_FILE} <= held
    assert "self_check/0.png" in held
    assert "model.torchscript.pt" not in held
    assert not any("__pycache__" in name for name in held)


def test_the_version_is_made_from_the_content(export, tmp_path):
    first = build(export, tmp_path / "first.mar", ["onnx_int8"])
    other = build(export, tmp_path / "other.mar", ["onnx_fp32"])
    assert len(first.version) == 12
    assert first.version != other.version
    with zipfile.ZipFile(tmp_path / "first.mar") as archive:
        assert Metadata.from_json(archive.read(METADATA_FILE)) == first
        assert json.loads(archive.read("MAR-INF/MANIFEST.json"))["model"]["modelVersion"] == first.version


def test_an_archive_packed_again_is_the_same_archive(export, tmp_path):
    build(export, tmp_path / "first.mar")
    build(tmp_path / "first.mar", tmp_path / "again.mar")
    assert (tmp_path / "first.mar").read_bytes() == (tmp_path / "again.mar").read_bytes()


def test_new_answers_are_recorded_only_when_asked_for(export, tmp_path):
    built = build(export, tmp_path / "built.mar", ["onnx_int8"])
    with opened(export) as folder:
        metadata = Metadata.read(folder)
    wrong = dataclasses.replace(
        metadata, self_check=tuple(SelfCheck(c.file, {"onnx_int8": [0.5, 0.5]}) for c in metadata.self_check)
    )
    shutil.copytree(export, tmp_path / "wrong")
    (tmp_path / "wrong" / METADATA_FILE).write_text(wrong.to_json())
    kept = build(tmp_path / "wrong", tmp_path / "kept.mar", ["onnx_int8"])
    recorded = build(tmp_path / "wrong", tmp_path / "recorded.mar", ["onnx_int8"], record_self_check=True)
    assert kept.self_check == wrong.self_check
    assert [c.probabilities["onnx_int8"] for c in recorded.self_check] == [
        c.probabilities["onnx_int8"] for c in built.self_check
    ]


def test_weights_that_the_export_does_not_hold_are_refused(export, tmp_path):
    build(export, tmp_path / "int8.mar", ["onnx_int8"])
    with pytest.raises(ArchiveError, match=r"does not hold the weights torchscript; it holds onnx_int8"):
        build(tmp_path / "int8.mar", tmp_path / "again.mar")


def test_a_source_that_is_nothing_of_ours_is_refused(tmp_path):
    (tmp_path / "note.txt").write_text("hello")
    with pytest.raises(ArchiveError, match="neither the folder of an export nor an archive"):
        build(tmp_path / "note.txt", tmp_path / "target.mar")
    with pytest.raises(ArchiveError, match=r"no metadata\.json"):
        build(tmp_path, tmp_path / "target.mar")


def test_too_large_an_archive_is_refused(export, tmp_path, monkeypatch):
    monkeypatch.setattr(archiving, "MAX_BYTES", 1000)
    with pytest.raises(ArchiveError, match="more than 1000; choose fewer weights"):
        build(export, tmp_path / "vinegrape.mar")
    assert not (tmp_path / "vinegrape.mar").exists()


def test_an_entry_file_that_cannot_be_imported_is_refused(export, tmp_path, monkeypatch):
    broken = tmp_path / "vinegrape_entry.py"
    broken.write_text("import a_module_that_is_nowhere\n")
    monkeypatch.setattr(archiving, "_entry_file", lambda: broken)
    with pytest.raises(ArchiveError, match="a_module_that_is_nowhere"):
        build(export, tmp_path / "vinegrape.mar")
    assert not (tmp_path / "vinegrape.mar").exists()


def test_it_imports_where_the_project_is_not_installed(export, tmp_path):
    """Self-contained: without site-packages of ours, the archived package answers for itself."""
    build(export, tmp_path / "vinegrape.mar")
    with zipfile.ZipFile(tmp_path / "vinegrape.mar") as archive:
        archive.extractall(tmp_path / "model")
    code = "import vinegrape_entry, vinegrape_handler; print(vinegrape_handler.__file__)"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "model", capture_output=True, text=True)
    assert result.stdout.strip().startswith(str(tmp_path / "model"))


def test_the_card_shows_the_archives_own_figures(export, tmp_path):
    metadata = build(export, tmp_path / "vinegrape.mar")
    text = write_card(metadata, tmp_path / "vinegrape.mar").read_text()
    assert metadata.version in text
    assert metadata.data_digest in text
    assert f"{metadata.metrics['test_accuracy']:.1%}" in text
    assert "trained from random weights" in text


def test_the_card_speaks_of_the_data_set_only_where_it_was_seen(export, tmp_path):
    """The drawn leaves are another data set; the committed model saw the real one."""
    metadata = build(export, tmp_path / "vinegrape.mar")
    drawn, real = write_card(metadata, tmp_path / "vinegrape.mar").read_text(), CARD.read_text()
    for words in ("Grapevine Leaves Image Dataset", "light box", "Koklu"):
        assert words in real
        assert words not in drawn


def test_the_committed_archive_is_small_enough_and_has_its_own_card(tmp_path):
    committed = ROOT / "model_store" / "vinegrape.mar"
    assert committed.stat().st_size <= archiving.MAX_BYTES
    assert {"model.int8.onnx", "model.torchscript.pt"} <= names(committed)
    copied = shutil.copy(committed, tmp_path)
    with zipfile.ZipFile(copied) as archive:
        metadata = Metadata.from_json(archive.read(METADATA_FILE))
    card = write_card(metadata, tmp_path / "vinegrape.mar")
    assert card.read_text() == CARD.read_text()
