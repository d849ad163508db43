from functools import cache

import numpy as np
import pytest
from PIL import Image

from tests.support.images import gradient
from vinegrape_handler.images.resize import resize
from vinegrape_handler.metadata import INTERPOLATIONS
from vinegrape_training.data import drawn_leaves

WHITE = [255, 255, 255]

# One process of pytest-xdist runs the tests that import torch, because the import takes seconds.
imports_torch = pytest.mark.xdist_group("torch")


def timm_resize(image, side, interpolation) -> np.ndarray:
    """The result of timm's evaluation transform, uint8 [S, S, 3]."""
    from timm.data import create_transform

    transform = create_transform((3, side, side), interpolation=interpolation, crop_pct=1.0, use_prefetcher=True)
    return transform(image).permute(1, 2, 0).numpy()


@cache
def leaf(side) -> Image.Image:
    """A drawn leaf on white. A large one is enlarged from 512 pixels, because drawing it would take seconds."""
    if side > 512:
        return leaf(512).resize((side, side), Image.Resampling.NEAREST)
    drawn = drawn_leaves.draw_leaf("Dimnit", np.random.default_rng(0), side)
    canvas = Image.new("RGB", drawn.size, tuple(WHITE))
    canvas.paste(drawn, mask=drawn.getchannel("A"))
    return canvas


def differences(image, side, interpolation, timm_interpolation) -> np.ndarray:
    """The absolute difference of each value between `resize` and timm."""
    return np.abs(
        resize(image, side, interpolation).astype(int) - timm_resize(image, side, timm_interpolation).astype(int)
    )


@imports_torch
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("size", [20, 63, 64, 65, 200, 255, 256, 300, 511, 767, 800, 1024, 2000])
def test_square_images_equal_those_of_timm_except_for_rounding(size, interpolation):
    different = differences(leaf(size), 256, interpolation, interpolation)
    assert different.mean() < 0.2
    assert (different > 1).mean() < 0.03


@imports_torch
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_an_image_of_the_right_size_equals_that_of_timm(interpolation):
    assert not differences(leaf(256), 256, interpolation, interpolation).any()


@imports_torch
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("size", [65, 300, 511, 767])
def test_the_interpolations_differ(size, interpolation):
    """Without this difference, the comparisons with timm could not fail."""
    other = next(name for name in INTERPOLATIONS if name != interpolation)
    assert differences(leaf(size), 256, interpolation, other).mean() > 0.3


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize(
    "size", [(1, 1), (1, 2), (7, 3), (32, 32), (31, 33), (640, 480), (480, 640), (1, 5000), (5000, 1)]
)
@pytest.mark.parametrize("side", [1, 32, 33])
def test_every_image_becomes_a_square_of_the_side(size, side, interpolation):
    square = resize(Image.new("RGB", size), side, interpolation)
    assert square.shape == (side, side, 3)
    assert square.dtype == np.uint8


def rows_of_colour(square, colour) -> list[int]:
    return [index for index, row in enumerate(square) if (row == colour).all()]


def test_a_wide_image_is_centred_between_white_bars():
    square = resize(Image.new("RGB", (40, 20)), 16, "bicubic")
    assert rows_of_colour(square, WHITE) == [0, 1, 2, 3, 12, 13, 14, 15]
    assert rows_of_colour(square, [0, 0, 0]) == [4, 5, 6, 7, 8, 9, 10, 11]


def test_a_tall_image_is_centred_between_white_bars():
    square = resize(Image.new("RGB", (20, 40)), 16, "bicubic").transpose(1, 0, 2)
    assert rows_of_colour(square, WHITE) == [0, 1, 2, 3, 12, 13, 14, 15]
    assert rows_of_colour(square, [0, 0, 0]) == [4, 5, 6, 7, 8, 9, 10, 11]


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_nothing_is_cut_off(interpolation):
    """A black image with a red frame keeps the frame on all four sides."""
    image = Image.new("RGB", (400, 200), (255, 0, 0))
    image.paste((0, 0, 0), (20, 20, 380, 180))
    inner = resize(image, 100, interpolation)[25:75]
    for edge in (inner[:4], inner[-4:], inner[:, :4], inner[:, -4:]):
        assert np.abs(edge.reshape(-1, 3).astype(int) - [255, 0, 0]).max() <= 2
    assert (inner[20:30, 20:80] == 0).all()


def test_the_scale_is_the_same_in_both_directions():
    """A circle in a wide image stays a circle."""
    y, x = np.mgrid[:200, :400]
    circle = np.hypot(x - 199.5, y - 99.5) < 80
    image = Image.fromarray(np.where(circle, 0, 255).astype(np.uint8)).convert("RGB")
    dark = resize(image, 100, "bilinear")[:, :, 0] < 128
    assert abs(int(dark.any(0).sum()) - 40) <= 1
    assert abs(int(dark.any(1).sum()) - 40) <= 1


def test_a_line_of_5000_pixels_becomes_a_line_of_one_pixel_height():
    square = resize(Image.new("RGB", (5000, 1)), 32, "bicubic")
    assert rows_of_colour(square, [0, 0, 0]) == [15]
    assert len(rows_of_colour(square, WHITE)) == 31


def test_an_image_of_the_right_size_is_not_changed():
    image = gradient(32, 32)
    assert np.array_equal(resize(image, 32, "bicubic"), np.asarray(image))


def test_a_small_image_is_enlarged():
    assert (resize(Image.new("RGB", (2, 2), (1, 2, 3)), 64, "bicubic") == [1, 2, 3]).all()
