"""A JPEG without its end marker is decoded if all of its pixels are there, whatever its size and kind."""

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from tests.support.images import encode, gradient
from vinegrape_handler.errors import BrokenImage
from vinegrape_handler.images.decode import Limits, decode

LIMITS = Limits(max_bytes=10_000_000, max_pixels=10_000_000)

SIZES = {"small": (40, 24), "odd": (37, 23), "scaled by its decoder": (1600, 1200)}
OPTIONS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "with restart markers": {"restart_marker_blocks": 2},
    "subsampled": {"subsampling": 2},
}


def noise(size) -> Image.Image:
    """Coarse noise: no part of it is flat."""
    coarse = np.random.default_rng(0).integers(0, 255, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size)


JPEGS = {
    f"{size_name} {name} {mode}": encode(noise(size).convert(mode), "JPEG", **options)
    for size_name, size in SIZES.items()
    for name, options in OPTIONS.items()
    for mode in ("RGB", "L", "CMYK")
}


@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_without_its_end_marker_has_the_same_pixels(name):
    data = JPEGS[name]
    assert data.endswith(b"\xff\xd9")
    whole = np.asarray(decode(data, LIMITS, 64))
    for cut in (1, 2):
        assert np.array_equal(decode(data[:-cut], LIMITS, 64), whole)


@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_without_all_of_its_pixels_is_broken(name):
    """The file ends at a quarter, a half and three quarters of its longest scan."""
    data = JPEGS[name]
    scans = [at for at in range(len(data)) if data.startswith(b"\xff\xda", at)] + [len(data)]
    length, start = max((end - start, start) for start, end in pairwise(scans))
    for quarter in (1, 2, 3):
        with pytest.raises(BrokenImage):
            decode(data[: start + quarter * length // 4], LIMITS, 64)


def test_bytes_after_the_end_marker_are_ignored():
    data = encode(gradient(), "JPEG")
    assert np.array_equal(decode(data + bytes(1000), LIMITS, 64), decode(data, LIMITS, 64))


def test_the_limit_of_bytes_does_not_count_the_end_marker_that_was_added():
    data = encode(gradient(), "JPEG")[:-2]
    assert decode(data, Limits(len(data), 10_000), 64).size == (37, 23)
