from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from vinegrape_training.data.image_folder import list_images
from vinegrape_training.data.manifest import (
    Entry,
    class_names,
    compare,
    dumps,
    load_manifest,
    loads,
    report,
    scan,
)
from vinegrape_training.errors import DataError, ManifestError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four small files with image names; a manifest compares bytes, so they need not be images."""
    for place in ("Ak/Ak (1).png", "Ak/Ak (2).png", "Nazli/Nazli (1).png", "Nazli/Nazli (2).png"):
        path = tmp_path / "leaves" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"this was {place}")
    return tmp_path / "leaves"


def places(entries: tuple[Entry, ...]) -> list[str]:
    return [entry.place for entry in entries]


def test_scan_reads_class_name_size_and_digest(folder: Path) -> None:
    content = b"this was Ak/Ak (1).png"
    assert scan(folder)[0] == Entry("Ak", "Ak (1).png", 22, hashlib.sha256(content).hexdigest())


def test_a_folder_matches_its_own_manifest(folder: Path) -> None:
    comparison = compare(folder, scan(folder))
    assert comparison.intact
    assert len(comparison.matching) == 4
    assert report(comparison).endswith("All 4 known images are present and unchanged.")


def test_missing_changed_and_new_images_are_distinguished(folder: Path) -> None:
    known = scan(folder)
    (folder / "Ak/Ak (1).png").unlink()
    (folder / "Ak/Ak (2).png").write_text("something else")
    (folder / "Nazli/Nazli (3).png").write_text("one more")
    comparison = compare(folder, known)
    assert not comparison.intact
    assert places(comparison.missing) == ["Ak/Ak (1).png"]
    assert places(comparison.changed) == ["Ak/Ak (2).png"]
    assert places(comparison.new) == ["Nazli/Nazli (3).png"]
    assert places(comparison.matching) == ["Nazli/Nazli (1).png", "Nazli/Nazli (2).png"]


def test_new_images_are_not_an_error(folder: Path) -> None:
    known = scan(folder)
    (folder / "Ak/Ak (3).png").write_text("one more")
    assert compare(folder, known).intact


def test_an_image_in_another_class_is_misplaced_and_not_missing(folder: Path) -> None:
    known = scan(folder)
    (folder / "Ak/Ak (1).png").rename(folder / "Nazli/Ak (1).png")
    comparison = compare(folder, known)
    assert not comparison.intact
    assert [(was.place, now.place) for was, now in comparison.misplaced] == [("Ak/Ak (1).png", "Nazli/Ak (1).png")]
    assert comparison.missing == comparison.changed == comparison.new == ()
    assert "Ak/Ak (1).png is Nazli/Ak (1).png" in report(comparison)


def test_an_image_renamed_in_its_class_is_not_an_error(folder: Path) -> None:
    known = scan(folder)
    (folder / "Ak/Ak (1).png").rename(folder / "Ak/first.png")
    comparison = compare(folder, known)
    assert comparison.intact
    assert [(was.place, now.place) for was, now in comparison.renamed] == [("Ak/Ak (1).png", "Ak/first.png")]
    assert comparison.new == ()


def test_two_exchanged_images_are_both_misplaced(folder: Path) -> None:
    known = scan(folder)
    ak, nazli = folder / "Ak/Ak (1).png", folder / "Nazli/Nazli (1).png"
    ak_bytes, nazli_bytes = ak.read_bytes(), nazli.read_bytes()
    ak.write_bytes(nazli_bytes)
    nazli.write_bytes(ak_bytes)
    comparison = compare(folder, known)
    assert [was.place for was, _ in comparison.misplaced] == ["Ak/Ak (1).png", "Nazli/Nazli (1).png"]
    assert comparison.changed == comparison.new == ()


def test_a_copy_of_a_known_image_is_new(folder: Path) -> None:
    known = scan(folder)
    (folder / "Ak/copy.png").write_bytes((folder / "Ak/Ak (1).png").read_bytes())
    assert places(compare(folder, known).new) == ["Ak/copy.png"]


def test_the_report_shortens_long_lists(folder: Path) -> None:
    known = scan(folder)
    for number in range(3, 15):
        (folder / f"Ak/Ak ({number}).png").write_text(f"number {number}")
    text = report(compare(folder, known), names=10)
    assert "New (not in the manifest): 12" in text
    assert "  and 2 more" in text


def test_files_that_are_not_images_are_ignored(folder: Path) -> None:
    (folder / "Ak" / "notes.xlsx").write_text("a table")
    (folder / "Ak" / "._Ak (1).png").write_text("left by an archive tool")
    assert [len(images) for images in list_images(folder).values()] == [2, 2]


def test_a_missing_folder_and_a_folder_without_images_are_reported(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere is not a folder"):
        scan(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no images in folders"):
        scan(folder / "Ak")


def test_a_written_manifest_is_read_back_and_has_one_line_per_image(folder: Path) -> None:
    entries = scan(folder)
    text = dumps(entries)
    assert loads(text) == entries
    assert len(text.splitlines()) == 4 + 2


@pytest.mark.parametrize("text", ["", "[]", '{"images": [{"class": "Ak"}]}'])
def test_an_invalid_manifest_is_reported(text: str) -> None:
    with pytest.raises(ManifestError, match="vinegrape data manifest"):
        loads(text)


def test_the_committed_manifest_holds_80_images_of_each_class() -> None:
    labels = [entry.label for entry in load_manifest()]
    assert class_names() == ("Ak", "Ala_Idris", "Buzgulu", "Dimnit", "Nazli")
    assert [labels.count(name) for name in class_names()] == [80] * 5


def test_the_real_data_set_matches_the_committed_manifest(leaves: Path) -> None:
    assert places(compare(leaves, load_manifest()).matching) == places(load_manifest())
