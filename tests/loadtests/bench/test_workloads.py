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


def opened(data) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_the_leaf_is_asked_as_it_is(workloads):
    assert workloads["png"].bodies == (LEAF.read_bytes(),)


def test_the_same_leaf_as_jpeg_of_about_40_kb(workloads):
    (body,) = workloads["jpeg"].bodies
    assert opened(body).format == "JPEG"
    assert opened(body).size == opened(LEAF.read_bytes()).size
    assert 25_000 < len(body) <= 40_000


def test_the_photo_has_12_megapixels(workloads):
    width, height = opened(workloads["photo"].bodies[0]).size
    assert width * height >= 12e6


def test_who_cannot_do_transparency_gets_the_leaf_on_white(workloads):
    leaf, white = opened(workloads["png"].bodies[0]), opened(workloads["png"].opaque[0])
    assert (leaf.mode, white.mode, white.format) == ("RGBA", "RGB", "PNG")
    seen, solid = np.asarray(white), np.asarray(leaf.getchannel("A")) == 255
    assert np.array_equal(seen[solid], np.asarray(leaf.convert("RGB"))[solid])
    assert (seen[np.asarray(leaf.getchannel("A")) == 0] == 255).all()


def test_the_mix_is_of_all_three(workloads):
    kinds = [next(name for name in ("png", "jpeg", "photo") if body in workloads[name].bodies)
             for body in workloads["mix"].bodies]  # fmt: skip
    assert kinds == ["png", "jpeg", "png", "jpeg", "photo"]
    assert len(workloads["mix"].opaque) == 5
