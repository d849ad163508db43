import io

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from vinegrape_loadtests.bench.workloads import make_workloads

LEAF = ROOT / "docs" / "leaf.png"


@pytest.fixture(scope="module")
def workloads():
    return make_workloads(LEAF)


def open_image(data) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_the_png_is_the_leaf_itself(workloads):
    assert workloads["png"].bodies == (LEAF.read_bytes(),)


def test_the_jpeg_is_the_same_leaf_in_about_40_kb(workloads):
    (body,) = workloads["jpeg"].bodies
    assert open_image(body).format == "JPEG"
    assert open_image(body).size == open_image(LEAF.read_bytes()).size
    assert 25_000 < len(body) <= 40_000


def test_the_photo_has_12_megapixels(workloads):
    width, height = open_image(workloads["photo"].bodies[0]).size
    assert width * height >= 12e6


def test_servers_that_need_opaque_images_get_the_leaf_on_white(workloads):
    leaf, white = open_image(workloads["png"].bodies[0]), open_image(workloads["png"].opaque[0])
    assert (leaf.mode, white.mode, white.format) == ("RGBA", "RGB", "PNG")
    pixels, solid = np.asarray(white), np.asarray(leaf.getchannel("A")) == 255
    assert np.array_equal(pixels[solid], np.asarray(leaf.convert("RGB"))[solid])
    assert (pixels[np.asarray(leaf.getchannel("A")) == 0] == 255).all()


def test_the_mix_contains_two_of_each_leaf_per_photo(workloads):
    kinds = [next(name for name in ("png", "jpeg", "photo") if body in workloads[name].bodies)
             for body in workloads["mix"].bodies]  # fmt: skip
    assert kinds == ["png", "jpeg", "png", "jpeg", "photo"]
    assert len(workloads["mix"].opaque) == 5
