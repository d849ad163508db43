"""Images with their transparency, and with the colours that the service sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from vinegrape_handler.images.decode import decode
from vinegrape_training.data.dataset import LIMITS
from vinegrape_training.data.transparency import MAX_SIDE, is_transparent, on_white, read_rgba
from vinegrape_training.errors import DataError


@pytest.mark.parametrize("file", ["docs/leaf.png", "docs/page.png"])
def test_an_image_on_white_is_what_the_service_decodes(file: str) -> None:
    image = read_rgba(ROOT / file)
    assert image.mode == "RGBA"
    served = decode((ROOT / file).read_bytes(), LIMITS, MAX_SIDE)
    served.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(np.asarray(on_white(image)), np.asarray(served), atol=1)


def test_the_leaf_keeps_its_transparency() -> None:
    image = read_rgba(ROOT / "docs" / "leaf.png")
    assert image.getpixel((0, 0))[3] == 0
    assert is_transparent(image)


def test_an_image_without_transparency_is_opaque(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), (1, 2, 3)).save(tmp_path / "photo.bmp")
    image = read_rgba(tmp_path / "photo.bmp")
    assert image.getpixel((0, 0)) == (1, 2, 3, 255)
    assert not is_transparent(image)


def test_an_image_whose_colours_are_converted_is_opaque(tmp_path: Path) -> None:
    image = Image.new("RGBA", (4, 2), (200, 0, 0, 255))
    image.putpixel((0, 0), (0, 0, 0, 0))
    exif = Image.Exif()
    exif[274] = 6  # turn by 90 degrees
    image.save(tmp_path / "turned.png", exif=exif)
    turned = read_rgba(tmp_path / "turned.png")
    assert turned.size == (2, 4)
    assert not is_transparent(turned)


def test_a_large_image_is_scaled_down(tmp_path: Path) -> None:
    Image.new("RGBA", (MAX_SIDE * 2, MAX_SIDE), (0, 0, 0, 255)).save(tmp_path / "large.png")
    assert read_rgba(tmp_path / "large.png").size == (MAX_SIDE, MAX_SIDE // 2)


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match=r"broken\.png cannot be decoded"):
        read_rgba(tmp_path / "broken.png")
