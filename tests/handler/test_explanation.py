import io

import numpy as np
import pytest
from PIL import Image

from vinegrape_handler.classifier import FittedImage
from vinegrape_handler.explanation import draw_overlay, heat_map

SIDE = 32


def image(width: int = SIDE, height: int = SIDE, colour: int = 128) -> FittedImage:
    """An image of one grey in a white square."""
    pixels = np.full((SIDE, SIDE, 3), 255, np.uint8)
    left, top = (SIDE - width) // 2, (SIDE - height) // 2
    pixels[top : top + height, left : left + width] = colour
    return FittedImage(pixels, width, height)


def places(*rows: str) -> np.ndarray:
    """A map of 4 x 4 places, from one digit per place."""
    return np.array([[int(value) for value in row] for row in rows], np.float32)


LEFT = places("8800", "8800", "8800", "8800")


def test_the_heat_is_the_positive_part_divided_by_its_maximum():
    activation_map = np.array([[-4, 0], [1, 2]], np.float32)
    np.testing.assert_array_equal(heat_map(activation_map, image()), [[0, 0], [0.5, 1]])


@pytest.mark.parametrize("value", [0, -3])
def test_the_heat_is_0_if_no_place_speaks_for_the_class(value):
    np.testing.assert_array_equal(heat_map(np.full((4, 4), value, np.float32), image()), np.zeros((4, 4)))


def test_the_white_margins_of_the_square_are_left_out():
    """They are hot here, which must not count."""
    activation_map = places("9999", "1234", "4321", "9999")
    heat = heat_map(activation_map, image(height=SIDE // 2))
    np.testing.assert_allclose(heat, [[0.25, 0.5, 0.75, 1], [1, 0.75, 0.5, 0.25]], atol=1e-6)


@pytest.mark.parametrize(("size", "shape"), [((32, 20), (3, 4)), ((1, 32), (4, 1)), ((32, 32), (4, 4))])
def test_the_heat_has_the_resolution_of_the_map(size, shape):
    assert heat_map(LEFT, image(*size)).shape == shape


def overlay(activation_map: np.ndarray, fitted: FittedImage) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(draw_overlay(activation_map, fitted))), np.int64)


@pytest.mark.parametrize("turns", range(4))
def test_the_overlay_is_bright_where_the_map_is_high(turns):
    """The bright half is at the left, then at the bottom, and so on."""
    picture = overlay(np.rot90(LEFT, turns).copy(), image())
    light = np.rot90(picture, -turns).sum(axis=2)
    assert picture.shape == (SIDE, SIDE, 3)
    assert light[:, :8].min() > 2 * light[:, 24:].max()


def test_the_overlay_shows_the_image_in_grey():
    dark, bright = (overlay(np.zeros((4, 4), np.float32), image(colour=colour)) for colour in (0, 200))
    np.testing.assert_allclose(bright - dark, 0.45 * 200, atol=1)


@pytest.mark.parametrize("size", [(32, 20), (20, 32), (32, 1), (31, 32)])
def test_the_overlay_has_the_size_of_the_image_without_margins(size):
    width, height = size
    picture = overlay(LEFT, image(width, height))
    assert picture.shape == (height, width, 3)
    # Grey is the darkest colour of the heat at the right end. The margins are white
    assert picture[:, -1].max() < 0.7 * 255 or width < SIDE
