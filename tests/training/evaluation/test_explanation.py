from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.tiny_archive import SIDE, write_export
from vinegrape_handler.errors import ArchiveError
from vinegrape_training.errors import DataError
from vinegrape_training.evaluation.explanation import measure_heat


@pytest.fixture(scope="module")
def explaining(tmp_path_factory) -> Path:
    """The tiny network: the heat of a place is its red, green or blue. White has all of them."""
    folder = tmp_path_factory.mktemp("explaining") / "export"
    write_export(folder, explains=True)
    return folder


def write_leaf(folder: Path, colour: tuple[int, int, int], alpha: int = 0) -> Path:
    """A leaf of one colour in the left quarter; the rest has this alpha, and becomes white if it is transparent."""
    pixels = np.full((SIDE, SIDE, 4), (*colour, alpha), np.uint8)
    pixels[:, : SIDE // 4, 3] = 255
    for class_ in ("Ak", "Nazli"):
        (folder / class_).mkdir(parents=True)
        Image.fromarray(pixels).save(folder / class_ / "leaf.png")
    return folder


@pytest.mark.parametrize(("colour", "heat"), [((255, 0, 0), 0.25), ((0, 0, 0), 0)])
def test_the_heat_on_the_leaf_is_measured(explaining, tmp_path, colour, heat):
    """Red is as hot as white, so the leaf has its own share of the heat. Black is not hot."""
    measured = measure_heat(explaining, write_leaf(tmp_path / "leaves", colour), 50)
    assert (measured.images, measured.leaf) == (2, 0.25)
    assert measured.heat == pytest.approx(heat, abs=0.05)  # the map is interpolated
    assert measured.ratio == measured.lowest_ratio == pytest.approx(heat / 0.25, abs=0.2)


def test_images_without_transparency_are_refused(explaining, tmp_path):
    folder = write_leaf(tmp_path / "leaves", (255, 0, 0))
    for path in folder.glob("*/*.png"):
        Image.open(path).convert("RGB").save(path)
    with pytest.raises(DataError, match="no transparent pixels"):
        measure_heat(explaining, folder, 50)


def test_a_network_without_maps_is_refused(tiny_export, tmp_path):
    with pytest.raises(ArchiveError, match="no activation maps"):
        measure_heat(tiny_export, write_leaf(tmp_path / "leaves", (255, 0, 0)), 50)
