"""The clock is passed in: it advances by a second whenever it is read."""

import io
from itertools import count

import numpy as np
import pytest
from PIL import Image

from tests.support.images import encode
from vinegrape_handler.errors import TooLarge
from vinegrape_handler.images import decode as decode_module
from vinegrape_handler.images import time_limit
from vinegrape_handler.images.decode import Limits, decode
from vinegrape_handler.images.time_limit import MAX_DECODE_SECONDS, limit_time

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), np.uint8))
IN_BLOCKS = {
    "JPEG": {"quality": 90},
    "PNG": {},
    "TIFF": {"tiffinfo": {278: 10}},  # rows per strip
}


def opened(format_: str) -> Image.Image:
    return Image.open(io.BytesIO(encode(NOISE, format_, **IN_BLOCKS[format_])))


@pytest.mark.parametrize("format_", IN_BLOCKS)
def test_decoding_stops_when_the_time_is_over(format_):
    clock = count()
    image = opened(format_)
    limit_time(image, clock=lambda: next(clock))
    with pytest.raises(TooLarge, match="needs more time"):
        image.load()
    assert next(clock) <= MAX_DECODE_SECONDS + 3  # it was read before each block, and no more after the limit


@pytest.mark.parametrize("format_", IN_BLOCKS)
def test_decoding_within_the_time_gives_the_same_pixels(format_):
    limited, free = opened(format_), opened(format_)
    limit_time(limited, clock=lambda: 0.0)
    assert np.array_equal(np.asarray(limited), np.asarray(free))


def test_a_compressed_tiff_and_a_webp_are_decoded_in_one_call():
    for format_, options in (("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {"lossless": True})):
        image = Image.open(io.BytesIO(encode(NOISE, format_, **options)))
        limit_time(image, clock=lambda: 0.0)
        assert np.array_equal(np.asarray(image), np.asarray(NOISE))


def test_decode_limits_the_time(monkeypatch):
    clock = count(step=10)
    monkeypatch.setattr(
        decode_module, "limit_time", lambda image: time_limit.limit_time(image, clock=lambda: float(next(clock)))
    )
    with pytest.raises(TooLarge, match="needs more time"):
        decode(encode(NOISE, "PNG"), Limits(10**7, 10**6), 64)
