"""The properties of images that can be checked by eye."""

import numpy as np
import pytest

from vinegrape_handler.properties import measure

SIDE = 64


def solid(*colour: int) -> np.ndarray:
    return np.full((SIDE, SIDE, 3), colour, np.uint8)


def with_square(background: int, square: int) -> np.ndarray:
    """A grey image with a square in its middle, which covers a quarter of it."""
    image = solid(background, background, background)
    image[SIDE // 4 : -SIDE // 4, SIDE // 4 : -SIDE // 4] = square
    return image


def values(name: str, *images: np.ndarray) -> list[float]:
    return measure(np.stack(images))[name].tolist()


def test_brightness_is_0_for_black_and_1_for_white():
    assert values("brightness", solid(0, 0, 0), solid(255, 255, 255), solid(255, 0, 0)) == pytest.approx([0, 1, 1 / 3])


def test_the_background_is_the_colour_of_the_border():
    assert values("background", with_square(255, 0), with_square(51, 255)) == pytest.approx([1, 0.2])


def test_the_size_is_the_share_of_what_is_not_background():
    """Whatever the colour of the background is; JPEG's noise is background."""
    assert values("size", with_square(255, 0), with_square(0, 255)) == pytest.approx([0.25, 0.25])
    assert values("size", with_square(255, 250)) == [0]


def test_warmth_follows_red_and_blue():
    assert values("warmth", solid(255, 0, 0), solid(9, 9, 9), solid(0, 0, 255)) == pytest.approx([1, 0.5, 0])


def test_sharpness_is_that_of_a_pattern_and_falls_with_blur():
    stripes = solid(0, 0, 0)
    stripes[:, ::2] = 255  # the Laplacian of each pixel is 2 or -2, in units of 255
    smooth = ((stripes + np.roll(stripes, 1, axis=1).astype(int)) // 2).astype(np.uint8)
    assert values("sharpness", stripes, solid(80, 80, 80)) == pytest.approx([2, 0])
    assert values("sharpness", smooth)[0] < 0.1


@pytest.mark.parametrize("side", [3, 16, 320])
def test_images_of_a_batch_do_not_affect_each_other(side):
    images = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), dtype=np.uint8)
    together = measure(images)
    for index in range(3):
        alone = measure(images[index : index + 1])
        assert all(alone[name] == pytest.approx(together[name][index : index + 1]) for name in together)
