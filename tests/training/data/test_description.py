from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from vinegrape_training.commands.data import data
from vinegrape_training.data.description import describe
from vinegrape_training.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One class of two 10 x 10 images with a red 4 x 4 square, and one class of a grey image without alpha."""
    square = np.zeros((10, 10, 4), dtype=np.uint8)
    square[3:7, 3:7] = (200, 10, 0, 255)
    at_the_edge = np.roll(square, 3, axis=0)
    at_the_edge[0, :5, 3] = 100  # translucent, below the limit for leaf pixels
    (tmp_path / "square").mkdir()
    (tmp_path / "whole").mkdir()
    Image.fromarray(square).save(tmp_path / "square" / "a.png")
    Image.fromarray(at_the_edge).save(tmp_path / "square" / "b.png")
    Image.new("L", (6, 5), 7).save(tmp_path / "whole" / "a.png")
    return tmp_path


def test_statistics_are_those_worked_out_by_hand(folder: Path) -> None:
    square, whole = describe(folder)
    assert (square.name, square.images, square.sizes) == ("square", 2, ((10, 10),))
    assert (square.leaf, square.leaf_range, square.touching) == (0.16, (0.16, 0.16), 0.5)
    assert square.translucent == pytest.approx(0.025)
    assert square.colour == (200, 10, 0)
    assert (whole.sizes, whole.leaf, whole.touching, whole.colour) == (((6, 5),), 1.0, 1.0, (7, 7, 7))


def test_the_command_prints_one_line_per_class(folder: Path) -> None:
    result = CliRunner().invoke(data, ["describe", str(folder)])
    assert result.exit_code == 0
    title, square, whole = result.stdout.splitlines()
    assert title.split()[:3] == ["class", "images", "size"]
    assert " ".join(square.split()) == "square 2 10 x 10 16.0% (16% to 16%) 50.0% 2.5% 200 10 0"
    assert whole.split()[0] == "whole"


def test_a_class_of_transparent_images_has_no_colour(folder: Path) -> None:
    Image.new("RGBA", (6, 5)).save(folder / "whole" / "a.png")
    _, whole = describe(folder)
    assert (whole.leaf, whole.touching) == (0, 0)
    assert whole.colour is None


def test_an_image_that_cannot_be_read_is_reported(folder: Path) -> None:
    (folder / "whole" / "a.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"whole/a\.png cannot be read"):
        describe(folder)
