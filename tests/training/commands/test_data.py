from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from vinegrape_training.commands.data import data
from vinegrape_training.data import fetch
from vinegrape_training.data.drawn_leaves import draw_dataset
from vinegrape_training.data.manifest import loads, scan
from vinegrape_training.errors import DataError, FetchError


def run(*arguments: str | int | Path) -> Result:
    return CliRunner().invoke(data, [str(argument) for argument in arguments])


def test_draw_writes_a_data_set(tmp_path: Path) -> None:
    result = run("draw", tmp_path / "leaves", "--images-per-class", 2, "--seed", 1, "--side", 32)
    assert result.exit_code == 0
    assert "2 images of each of Ak, Ala_Idris, Buzgulu, Dimnit, Nazli" in result.stdout
    draw_dataset(tmp_path / "again", images_per_class=2, seed=1, side=32)
    assert scan(tmp_path / "leaves") == scan(tmp_path / "again")


def test_draw_writes_a_single_image(tmp_path: Path) -> None:
    assert run("draw", tmp_path / "leaf.png", "--single", "Nazli", "--side", 48).exit_code == 0
    with Image.open(tmp_path / "leaf.png") as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGBA", (48, 48))


def test_an_unknown_kind_is_reported_with_the_valid_ones(tmp_path: Path) -> None:
    result = run("draw", tmp_path / "leaf.png", "--single", "Merlot")
    assert result.exit_code == 2
    assert "'Merlot' is not one of Ak, Ala_Idris, Buzgulu, Dimnit, Nazli" in result.stderr
    assert not (tmp_path / "leaf.png").exists()


def test_manifest_writes_to_standard_output_or_a_file(tmp_path: Path) -> None:
    draw_dataset(tmp_path / "leaves", images_per_class=1, seed=0, side=16)
    assert loads(run("manifest", tmp_path / "leaves").stdout) == scan(tmp_path / "leaves")
    assert run("manifest", tmp_path / "leaves", tmp_path / "manifest.json").exit_code == 0
    assert loads((tmp_path / "manifest.json").read_text()) == scan(tmp_path / "leaves")


def test_manifest_of_a_missing_folder_does_not_change_the_file(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("old")
    result = run("manifest", tmp_path / "nowhere", tmp_path / "manifest.json")
    assert isinstance(result.exception, DataError)
    assert (tmp_path / "manifest.json").read_text() == "old"


def test_check_of_other_images_lists_the_known_ones_as_missing_or_changed_and_fails(tmp_path: Path) -> None:
    draw_dataset(tmp_path, images_per_class=1, seed=0, side=16)
    result = run("check", tmp_path, "--names", 2)
    assert result.exit_code == 1
    assert "0 of 400 known images" in result.stdout
    assert "Missing: 395\n" in result.stdout
    assert "Changed (other content than in the manifest): 5\n" in result.stdout
    assert "  and 393 more\n" in result.stdout


def test_check_of_the_real_data_set_passes(leaves: Path) -> None:
    result = run("check", leaves)
    assert result.exit_code == 0
    assert "All 400 known images are present and unchanged." in result.stdout


def test_check_lists_a_real_image_in_the_wrong_class(leaves: Path, tmp_path: Path) -> None:
    shutil.copytree(leaves, tmp_path / "leaves", copy_function=lambda source, target: Path(target).symlink_to(source))
    (tmp_path / "leaves/Ak/Ak (1).png").rename(tmp_path / "leaves/Nazli/Ak (1).png")
    result = run("check", tmp_path / "leaves")
    assert result.exit_code == 1
    assert "Ak/Ak (1).png is Nazli/Ak (1).png" in result.stdout
    assert "399 of 400 known images are present, unchanged and in their class." in result.stdout


def test_fetch_checks_the_images_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_dataset(tmp_path / "cache", images_per_class=1, seed=0, side=16)
    monkeypatch.setattr(fetch, "_kagglehub_download", lambda: lambda name: str(tmp_path / "cache"))
    result = run("fetch", "--to", tmp_path / "leaves")
    assert f"Copied 5 images to {tmp_path / 'leaves'}." in result.stdout
    assert "0 of 400 known images" in result.stdout
    assert result.exit_code == 1


def test_fetch_of_the_real_images_passes_the_check(
    leaves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "_kagglehub_download", lambda: lambda name: str(leaves.parent))
    result = run("fetch", "--to", tmp_path / "leaves")
    assert f"Copied 400 images to {tmp_path / 'leaves'}." in result.stdout
    assert result.exit_code == 0


def test_fetch_into_a_folder_that_is_not_empty_is_reported(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("keep me")
    assert isinstance(run("fetch", "--to", tmp_path).exception, FetchError)


@pytest.mark.parametrize("command", ["fetch", "check", "describe", "draw", "manifest"])
def test_help_shows_an_example(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"vinegrape data {command} " in result.stdout


def test_the_commands_are_imported_without_the_training_extra() -> None:
    code = (
        "import sys, vinegrape_training.commands.data\n"
        "print([name for name in ('torch', 'timm', 'lightning', 'kagglehub', 'rich') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
