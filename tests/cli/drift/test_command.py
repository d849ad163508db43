"""`vinegrape drift` with an archive whose reference has red images only."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from tests.support import tiny_archive as tiny
from tests.support.cli import error_text, run
from vinegrape_cli.drift.command import DRIFTED


@pytest.fixture(scope="module")
def red_archive(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("red")
    tiny.write_export(folder / "export", reference=tiny.RED_REFERENCE)
    return tiny.write_archive(folder / "vinegrape.mar", folder / "export")


def photos(folder: Path, colour: tuple[int, int, int], number: int) -> Path:
    """Write one image under several names."""
    folder.mkdir()
    Image.new("RGB", (8, 8), colour).save(folder / "0.png")
    for index in range(1, number):
        os.link(folder / "0.png", folder / f"{index}.png")
    return folder


def test_images_like_those_of_the_reference_have_not_drifted(red_archive, tmp_path):
    folder = photos(tmp_path / "photos", tiny.RED, 100)
    (folder / "notes.txt").write_text("no image")
    result = run("drift", folder, "--archive", red_archive, "--concurrency", 1)
    assert result.returncode == 0, result.stderr
    header, *lines = result.stdout.splitlines()
    assert header.split() == ["property", "images", "score", "threshold"]
    assert {line.split()[0]: int(line.split()[1]) for line in lines} == dict.fromkeys(
        ("confidence", "brightness", "label"), 100
    )
    assert "drift" not in result.stdout
    assert result.stderr == "100 images compared, 1 files failed\n"


def test_other_images_have_drifted_and_the_report_shows_how(red_archive, tmp_path):
    red, green = photos(tmp_path / "red", tiny.RED, 50), photos(tmp_path / "green", tiny.GREEN, 60)
    result = run("drift", red, green, "--archive", red_archive, "--output", tmp_path / "report", "--concurrency", 2)
    assert result.returncode == DRIFTED, result.stderr
    assert [line.split()[0] for line in result.stdout.splitlines() if line.endswith("drift")] == ["label"]
    report = json.loads((tmp_path / "report" / "drift.json").read_text())
    assert (report["has_drifted"], report["images"], report["failed"]) == (True, 110, 0)
    label = report["properties"]["label"]
    assert label["has_drifted"]
    assert dict(zip(label["bins"], label["counts"], strict=True)) == {
        "Ak": 50, "Ala_Idris": 60, "Buzgulu": 0, "Dimnit": 0, "Nazli": 0,
    }  # fmt: skip
    assert report["properties"]["brightness"]["bins"] == ["to 0.3", "to 0.4", "above 0.4"]
    with Image.open(tmp_path / "report" / "drift.png") as plot:
        assert plot.width > 500


def test_an_archive_without_a_reference_and_too_few_images_are_errors(red_archive, tiny_archive, tmp_path):
    folder = photos(tmp_path / "photos", tiny.RED, 99)
    assert "has no reference" in error_text("drift", folder, "--archive", tiny_archive)
    assert "There are 99 images" in error_text("drift", folder, "--archive", red_archive)
