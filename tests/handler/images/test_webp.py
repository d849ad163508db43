import io

import numpy as np
import pytest
from PIL import Image

from tests.support.images import encode, gradient
from vinegrape_handler.images.webp import release_decoder_early


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_the_decoder_is_released_and_the_pixels_are_the_same(mode):
    expected = gradient().convert(mode)
    if mode == "RGBA":
        expected.putalpha(200)
    data = encode(expected, "WEBP", lossless=True)
    image = Image.open(io.BytesIO(data))
    assert image._decoder is not None
    release_decoder_early(image)
    image.load()
    assert image._decoder is None
    assert np.array_equal(np.asarray(image), np.asarray(expected))


def test_other_formats_are_not_changed():
    image = Image.open(io.BytesIO(encode(gradient(), "PNG")))
    release_decoder_early(image)
    assert np.array_equal(np.asarray(image), np.asarray(gradient()))
