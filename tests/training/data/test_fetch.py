from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vinegrape_training.data.drawn_leaves import draw_dataset
from vinegrape_training.data.fetch import KAGGLE_NAME, fetch
from vinegrape_training.errors import FetchError


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """The layout of the real download: one folder around the five class folders, and files that are not images."""
    top = tmp_path / "cache" / "Grapevine_Leaves_Image_Dataset"
    draw_dataset(top, images_per_class=2, seed=0, side=16)
    (top / "Grapevine_Leaves_Image_Dataset_Citation_Request.txt").write_text("please cite")
    (top / "Ak" / "Grapevine_Leaves.xlsx").write_text("a table")
    return top.parent


def test_images_are_copied_into_one_folder_per_class(unpacked: Path, tmp_path: Path) -> None:
    names: list[str] = []

    def download(name: str) -> str:
        names.append(name)
        return str(unpacked)

    target = tmp_path / "data" / "leaves"
    assert fetch(target, download) == 10
    assert names == [KAGGLE_NAME]
    assert sorted(path.name for path in target.iterdir()) == ["Ak", "Ala_Idris", "Buzgulu", "Dimnit", "Nazli"]
    assert sorted(path.name for path in (target / "Ak").iterdir()) == ["Ak (1).png", "Ak (2).png"]
    original = unpacked / "Grapevine_Leaves_Image_Dataset" / "Nazli" / "Nazli (2).png"
    assert (target / "Nazli" / "Nazli (2).png").read_bytes() == original.read_bytes()
    assert list(target.parent.iterdir()) == [target]


def test_an_empty_target_is_accepted(unpacked: Path, tmp_path: Path) -> None:
    target = tmp_path / "leaves"
    target.mkdir()
    assert fetch(target, lambda name: str(unpacked)) == 10


def test_a_target_that_is_not_empty_is_not_changed(unpacked: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("keep me")
    with pytest.raises(FetchError, match="not an empty folder"):
        fetch(tmp_path, lambda name: str(unpacked))
    assert (tmp_path / "notes.txt").read_text() == "keep me"


def test_a_failed_download_explains_how_to_get_the_data_by_hand(tmp_path: Path) -> None:
    def download(name: str) -> str:
        raise ConnectionError("no route to host\nand details")

    with pytest.raises(FetchError) as caught:
        fetch(tmp_path / "leaves", download)
    text = str(caught.value)
    assert text.startswith("The download failed: no route to host\n")
    assert "and details" not in text
    assert KAGGLE_NAME in text
    assert f"vinegrape data check {tmp_path / 'leaves'}" in text
    assert not (tmp_path / "leaves").exists()


def test_without_kagglehub_the_error_names_the_package_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(FetchError, match=r"pip install kagglehub\nBy hand: "):
        fetch(tmp_path / "leaves")


def test_kagglehub_without_a_network_fails_with_the_same_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("kagglehub")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # no process listens: refused at once
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(FetchError, match=r"(?s)The download failed: .*By hand: "):
        fetch(tmp_path / "leaves")


def test_a_download_without_the_classes_is_reported(tmp_path: Path) -> None:
    (tmp_path / "cache" / "Ak").mkdir(parents=True)
    with pytest.raises(FetchError, match="no folder that holds Ak, Ala_Idris, Buzgulu, Dimnit, Nazli"):
        fetch(tmp_path / "leaves", lambda name: str(tmp_path / "cache"))
