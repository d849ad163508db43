"""The corruptions: on a green square in a white frame, where each result can be worked out, and on a drawn leaf."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vinegrape_handler.images.resize import resize
from vinegrape_training.data.drawn_leaves import draw_leaf, image_rng
from vinegrape_training.data.transparency import on_white
from vinegrape_training.evaluation.corruptions import CORRUPTIONS, Corruption

BY_NAME = {corruption.name: corruption for corruption in CORRUPTIONS}
SIDE = 192  # of the drawn leaf
GREEN = (40, 100, 40)

# The strength that changes nothing. JPEG has none, and changes of the frame (crop, large, close_up) also move the leaf.
NEUTRAL = {
    "dark": 1, "bright": 1, "blur": 0, "warm_light": 0, "cold_light": 0, "small": 1, "rotation": 0,
    **{f"{name}_background": 0 for name in ("grey", "beige", "black", "blue", "wood")},
    "shadow": 0, "cast_shadow": 0, "noise": 0, "low_resolution": SIDE,
}  # fmt: skip


@pytest.fixture
def square() -> Image.Image:
    """A transparent frame of 40 x 40 pixels with a green square of 20 x 20 pixels in the middle."""
    image = Image.new("RGBA", (40, 40))
    image.paste((*GREEN, 255), (10, 10, 30, 30))
    return image


@pytest.fixture(scope="module")
def leaf() -> Image.Image:
    return draw_leaf("Dimnit", image_rng(0, "Dimnit", 1), SIDE)


def apply(name: str, image: Image.Image, strength: float) -> NDArray[np.uint8]:
    """The corrupted pixels, [H, W, 3]."""
    result = BY_NAME[name].apply(image, strength)
    assert result.mode == "RGB"
    return np.asarray(result)


def green_box(pixels: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Left, upper, right and lower edge of the pixels that are green rather than white."""
    rows, columns = np.nonzero(pixels[..., 0] < 150)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


@pytest.mark.parametrize("name", NEUTRAL)
def test_a_neutral_strength_changes_nothing(name: str, leaf: Image.Image) -> None:
    np.testing.assert_array_equal(apply(name, leaf, NEUTRAL[name]), np.asarray(on_white(leaf)))


@pytest.mark.parametrize("name", ["large", "close_up"])
def test_a_magnification_begins_with_the_leaf_in_the_middle(name: str, square: Image.Image) -> None:
    moved = Image.new("RGBA", (40, 40))
    moved.paste(square, (-10, 5))
    assert green_box(apply(name, moved, 1)) == (10, 10, 30, 30)


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda corruption: corruption.name)
def test_strengths_are_repeatable_and_change_more_and_more(corruption: Corruption, leaf: Image.Image) -> None:
    clean = resize(on_white(leaf), SIDE, "bicubic").astype(int)
    changes = []
    for strength in corruption.strengths:
        first, second = (resize(corruption.apply(leaf, strength), SIDE, "bicubic") for _ in range(2))
        np.testing.assert_array_equal(first, second)
        changes.append(np.abs(first - clean).mean())
    assert min(changes) > 0
    if corruption.name != "rotation":  # a turned leaf may cover more of its old place
        assert changes == sorted(changes)


def test_each_required_strength_is_one_that_is_measured() -> None:
    assert len(BY_NAME) == len(CORRUPTIONS)
    for corruption in CORRUPTIONS:
        assert corruption.required is None or corruption.required in corruption.strengths


@pytest.mark.parametrize(("name", "factor"), [("dark", 0.5), ("bright", 2.0)])
def test_brightness_multiplies_all_values(name: str, factor: float, square: Image.Image) -> None:
    pixels = apply(name, square, factor)
    assert pixels[20, 20].tolist() == [factor * value for value in GREEN]
    assert pixels[0, 0].tolist() == [min(255, int(factor * 255))] * 3


def test_blur_softens_the_edge_by_a_length_that_grows_with_the_image(square: Image.Image) -> None:
    large = square.resize((1022, 1022), Image.Resampling.NEAREST)  # twice the reference: 1 px of it is 2 px here
    edge = apply("blur", large, 1)[511, :, 0].astype(int)
    assert edge[511] == GREEN[0]
    assert edge[0] == 255
    start, end = (int(np.argmax(edge < share * 255 + (1 - share) * GREEN[0])) for share in (0.84, 0.16))
    assert 3 <= end - start <= 5  # plus and minus one standard deviation


def test_light_changes_red_and_blue_in_opposite_directions(square: Image.Image) -> None:
    assert apply("warm_light", square, 0.5)[20, 20].tolist() == [60, 100, 20]
    assert apply("warm_light", square, 0.2)[0, 0].tolist() == [255, 255, 204]
    assert apply("cold_light", square, 0.5)[20, 20].tolist() == [20, 100, 60]


def test_jpeg_loses_more_at_a_lower_quality(leaf: Image.Image) -> None:
    clean = np.asarray(on_white(leaf)).astype(int)
    fine, coarse = (np.abs(apply("jpeg", leaf, quality) - clean).mean() for quality in (95, 10))
    assert 0 < fine < coarse / 3


def test_sizes_are_factors_of_the_leaf(square: Image.Image) -> None:
    assert green_box(apply("small", square, 0.5)) == (15, 15, 25, 25)
    assert green_box(apply("large", square, 1.5)) == (5, 5, 35, 35)
    assert green_box(apply("close_up", square, 1.5)) == (5, 5, 35, 35)


def test_only_a_close_up_cuts_off_parts_of_the_leaf(square: Image.Image) -> None:
    spot = square.copy()
    spot.paste((255, 0, 0, 255), (10, 10, 12, 12))  # the leaf's upper left corner is red
    large, close_up = (apply(name, spot, 4) for name in ("large", "close_up"))
    assert large[1, 1].tolist() == [255, 0, 0]
    assert (close_up == GREEN).all()


def test_a_crop_cuts_off_a_share_of_the_leaf(square: Image.Image) -> None:
    pixels = apply("crop", square, 0.25)
    assert pixels.shape == (40, 25, 3)
    assert green_box(pixels) == (10, 10, 25, 30)


def test_a_rotation_turns_counter_clockwise(square: Image.Image) -> None:
    square.paste((255, 0, 0, 255), (20, 10, 30, 20))  # a red quarter at the upper right
    turned = apply("rotation", square, 90)
    assert turned[15, 15].tolist() == [255, 0, 0]
    assert turned[15, 25].tolist() == list(GREEN)


def test_a_plain_background_replaces_white_and_leaves_the_leaf(square: Image.Image) -> None:
    for share, corner in ((1.0, (0, 0, 0)), (0.6, (102, 102, 102))):
        pixels = apply("black_background", square, share)
        assert pixels[0, 0].tolist() == pytest.approx(corner, abs=1)
        assert pixels[20, 20].tolist() == list(GREEN)
    assert apply("blue_background", square, 1)[0, 0].tolist() == [60, 100, 170]


def test_translucent_pixels_are_blended_with_the_background(square: Image.Image) -> None:
    square.paste((*GREEN, 128), (10, 10, 30, 30))
    assert apply("black_background", square, 1)[20, 20].tolist() == [20, 50, 20]


def test_wood_has_stripes_of_brown(square: Image.Image) -> None:
    pixels = apply("wood_background", square, 1).astype(int)
    row = pixels[2]
    assert (row[:, 0] > row[:, 1]).all()
    assert (row[:, 1] > row[:, 2]).all()
    assert row[:, 0].std() > 10
    assert pixels[20, 20].tolist() == list(GREEN)


def test_a_shadow_darkens_the_lower_right(square: Image.Image) -> None:
    pixels = apply("shadow", square, 0.5)
    assert pixels[12, 12].tolist() == list(GREEN)
    assert pixels[28, 28].tolist() == [20, 50, 20]
    assert pixels[39, 39].tolist() == [127, 127, 127]


def test_a_leaf_casts_its_shadow_on_the_background_only(square: Image.Image) -> None:
    pixels = apply("cast_shadow", square, 0.5)
    assert pixels[20, 20].tolist() == list(GREEN)
    assert pixels[9, 20, 0] > 230
    assert pixels[30, 20, 0] < 200
    assert pixels[0, 0].tolist() == [255, 255, 255]


def test_noise_has_the_standard_deviation() -> None:
    grey = Image.new("RGBA", (100, 100), (128, 128, 128, 255))
    assert (apply("noise", grey, 10).astype(int) - 128).std() == pytest.approx(10, abs=0.2)


def test_a_low_resolution_is_the_longer_side(square: Image.Image) -> None:
    assert apply("low_resolution", square.crop((0, 0, 40, 20)), 10).shape == (5, 10, 3)
