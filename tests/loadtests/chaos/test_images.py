"""The hostile images are images: Pillow opens each of them, and what makes it hostile is in the file."""

import io

import pytest
from PIL import Image

from vinegrape_loadtests.chaos.faults import images


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_a_progressive_jpeg_repeats_its_last_scan():
    plain, repeated = images.progressive_jpeg(1, 64), images.progressive_jpeg(50, 64)
    assert repeated.count(b"\xff\xda") - plain.count(b"\xff\xda") == 49
    image = opened(repeated)
    image.load()
    assert image.format == "JPEG"
    assert image.size == (64, 64)


@pytest.mark.parametrize(("width", "height", "depth"), [(1, 1000, 8), (1000, 1, 8), (20, 10, 16)])
def test_a_flat_png_has_its_size(width, height, depth):
    image = opened(images.flat_png(width, height, depth))
    image.load()
    assert image.size == (width, height)
    assert image.mode == "RGBA"


def test_a_png_keeps_its_private_chunks():
    data = images.flat_png(4, 4, extra=images._chunk(b"prIv", b"") * 100)
    assert data.count(b"prIv") == 100
    opened(data).load()


def test_a_tiled_tiff_is_small_and_its_tile_is_not():
    image = opened(images.tiled_tiff(160))
    image.load()
    assert image.size == (64, 64)
    assert image.tag_v2[322] == 160


def test_a_striped_tiff_has_a_strip_per_row():
    image = opened(images.striped_tiff(50))
    image.load()
    assert image.size == (1, 50)
    assert len(image.tag_v2[273]) == 50


def test_a_tiff_with_wrong_tags_has_them():
    with pytest.warns(UserWarning, match="Tag data larger than file") as warnings:
        image = opened(images.bad_tags_tiff(200))
    assert image.size == (1, 1)
    assert len({str(warning.message) for warning in warnings}) == 200


def test_a_bmp_of_line_ends_is_a_bmp():
    image = opened(images.rle_bmp(10_000))
    assert image.format == "BMP"
    assert image.size == (4000, 4000)
