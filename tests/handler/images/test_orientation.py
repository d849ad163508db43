import struct

import numpy as np
import pytest
from PIL import Image

from tests.support.images import corners, encode, png, png_chunk
from vinegrape_handler.errors import TooLarge
from vinegrape_handler.images.decode import Limits, decode
from vinegrape_handler.images.orientation import apply_orientation

LIMITS = Limits(10**8, 10**6)


def exif(orientation: int, rationals: int) -> bytes:
    """EXIF data with an orientation and a tag of many fractions."""
    tags = struct.pack("<HHHIHH", 2, 274, 3, 1, orientation, 0) + struct.pack("<HHII", 50_000, 5, rationals, 38)
    return b"II*\0" + struct.pack("<I", 8) + tags + bytes(4) + struct.pack("<II", 1, 3) * rationals


def png_with(data: bytes) -> bytes:
    return png(1, 2, 8, 0, b"\0\x00\0\xff", png_chunk(b"eXIf", data))


def test_the_exif_data_is_not_written_again():
    """Pillow's own function would take 5 s for this tag. Black above white becomes white left of black."""
    image = decode(png_with(exif(6, 499_999)), LIMITS, 16)
    assert np.asarray(image)[..., 0].tolist() == [[255, 0]]


def test_more_numbers_in_exif_data_are_refused():
    with pytest.raises(TooLarge, match="more than 500000 numbers"):
        decode(png_with(exif(6, 500_000)), LIMITS, 16)


def test_an_image_without_exif_data_stays_itself():
    image = Image.fromarray(corners())
    assert apply_orientation(image) is image
    assert decode(encode(image, "PNG"), LIMITS, 16).size == image.size
