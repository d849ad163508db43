from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vinegrape_training.data.drawn_leaves import draw_dataset
from vinegrape_training.data.fetch import KAGGLE_NAME, fetch
from vinegrape_training.errors import FetchError


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """What the real archive unpacks to: one folder around the five, and files that are no images."""
    top = tmp_path / "cache" / "Grapevine_Leaves_Image_Dataset"
    draw_dataset(top, images_per_class=2, seed=0, side=16)
    (top / "Grapevine_Leaves_Image_Dataset_Citation_Request.txt").write_text("please cite")
    (top / "Ak" / "Grapevine_Leaves.xlsx").write_text("a table")
    return top.parent


def test_images_arrive_a_folder_a_class(unpacked: Path, tmp_path: Path) -> None:
    asked: list[str] = []

    def download(name: str) -> str:
        asked.append(name)
        return str(unpacked)

    target = tmp_path / "data" / "leaves"
    assert fetch(target, download) == 10
    assert asked == [KAGGLE_NAME]
    assert sorted(path.name for path in target.iterdir()) == ["Ak", "Ala_Idris", "Buzgulu", "Dimnit", "Nazli"]
    assert sorted(path.name for path in (target / "Ak").iterdir()) == ["Ak (1).png", "Ak (2).png"]
    original = unpacked / "Grapevine_Leaves_Image_Dataset" / "Nazli" / "Nazli (2).png"
    assert (target / "Nazli" / "Nazli (2).png").read_bytes() == original.read_bytes()
    assert list(target.parent.iterdir()) == [target]


def test_empty_target_is_filled(unpacked: Path, tmp_path: Path) -> None:
    target = tmp_path / "leaves"
    target.mkdir()
    assert fetch(target, lambda name: str(unpacked)) == 10


def test_target_with_something_in_it_is_left_alone(unpacked: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(FetchError, match="not an empty folder"):
        fetch(tmp_path, lambda name: str(unpacked))
    assert (tmp_path / "mine.txt").read_text() == "keep me"


def test_failed_download_says_what_to_do_by_hand(tmp_path: Path) -> None:
    def download(name: str) -> str:
        raise ConnectionError("no route to host\nand a long story")

    with pytest.raises(FetchError) as caught:
        fetch(tmp_path / "leaves", download)
    text = str(caught.value)
    assert text.startswith("The download failed: no route to host\n")
    assert "a long story" not in text
    assert KAGGLE_NAME in text
    assert f"vinegrape data check {tmp_path / 'leaves'}" in text
    assert not (tmp_path / "leaves").exists()


def test_no_kagglehub_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(FetchError, match=r"pip install kagglehub\nBy hand: "):
        fetch(tmp_path / "leaves")


def test_kagglehub_without_a_network_fails_with_the_same_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("kagglehub")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there: refused at once, on any machine
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(FetchError, match=r"(?s)The download failed: .*By hand: "):
        fetch(tmp_path / "leaves")


def test_download_without_the_classes_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "cache" / "Ak").mkdir(parents=True)
    with pytest.raises(FetchError, match="no folder with Ak, Ala_Idris, Buzgulu, Dimnit, Nazli in it"):
        fetch(tmp_path / "leaves", lambda name: str(tmp_path / "cache"))
