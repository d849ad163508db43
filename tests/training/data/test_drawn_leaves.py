from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vinegrape_handler.images.decode import WHITE
from vinegrape_training.data.drawn_leaves import KINDS, draw_dataset, draw_leaf, image_rng


def leaf(kind: str, seed: int = 0, number: int = 1, side: int = 128) -> Image.Image:
    return draw_leaf(kind, image_rng(seed, kind, number), side)


def thumbnails(seed: int, count: int) -> NDArray[np.float64]:
    """Small images of `count` leaves of each kind on white: [5, count, 16 * 16 * 3]."""
    rows = []
    for kind in KINDS:
        for number in range(count):
            image = leaf(kind, seed, number, side=64)
            canvas = Image.new("RGB", image.size, WHITE)
            canvas.paste(image, mask=image)
            rows.append(np.asarray(canvas.resize((16, 16), Image.Resampling.BOX), dtype=np.float64).ravel())
    return np.array(rows).reshape(len(KINDS), count, -1)


def test_the_kinds_are_the_five_classes() -> None:
    assert list(KINDS) == ["Ak", "Ala_Idris", "Buzgulu", "Dimnit", "Nazli"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_leaf_has_a_transparent_background_like_real_images(kind: str) -> None:
    image = leaf(kind, side=511)
    pixels = np.asarray(image)
    alpha = pixels[..., 3]
    assert (image.mode, image.size) == ("RGBA", (511, 511))
    assert (alpha[[0, -1]] == 0).all()
    assert (alpha[:, [0, -1]] == 0).all()
    assert (pixels[alpha == 0] == (255, 255, 255, 0)).all()
    assert 0 < ((alpha > 0) & (alpha < 255)).mean() < 0.05  # only antialiased edges are translucent


@pytest.mark.parametrize("kind", KINDS)
def test_a_leaf_covers_10_to_60_percent_of_the_image(kind: str) -> None:
    shares = [(np.asarray(leaf(kind, seed=5, number=number, side=64))[..., 3] > 127).mean() for number in range(8)]
    assert min(shares) > 0.10
    assert max(shares) < 0.60


def test_kinds_can_be_classified_by_their_mean_image() -> None:
    centroids = thumbnails(seed=1, count=4).mean(axis=1)
    others = thumbnails(seed=2, count=3)
    distances = np.linalg.norm(others[:, :, None] - centroids, axis=-1)
    correct = distances.argmin(axis=-1) == np.arange(len(KINDS))[:, None]
    assert correct.mean() > 0.9


def test_two_leaves_of_a_kind_differ() -> None:
    assert leaf("Ak", number=1).tobytes() != leaf("Ak", number=2).tobytes()


def test_a_leaf_has_the_same_shape_at_any_size() -> None:
    small, large = leaf("Nazli", side=128), leaf("Nazli", side=384)
    shrunk = np.asarray(large.getchannel("A").reduce(3), dtype=float)
    assert np.abs(shrunk - np.asarray(small.getchannel("A"), dtype=float)).mean() < 2


def test_a_data_set_has_one_folder_per_class_and_the_real_file_names(tmp_path: Path) -> None:
    draw_dataset(tmp_path, images_per_class=2, seed=0, side=32)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png")) == [
        f"{kind}/{kind} ({number}).png" for kind in KINDS for number in (1, 2)
    ]


def test_a_seed_gives_the_same_bytes_for_any_number_of_images(tmp_path: Path) -> None:
    for name, seed, count in (("few", 3, 1), ("many", 3, 3), ("other", 4, 1)):
        draw_dataset(tmp_path / name, count, seed, side=32)
    first = {name: (tmp_path / name / "Dimnit" / "Dimnit (1).png").read_bytes() for name in ("few", "many", "other")}
    assert first["few"] == first["many"]
    assert first["few"] != first["other"]


def test_the_documentations_leaf_is_drawn_by_this_code() -> None:
    with Image.open(Path(__file__).parents[3] / "docs" / "leaf.png") as image:
        committed = np.asarray(image, dtype=float)
    drawn = np.asarray(leaf("Ala_Idris", seed=2, side=511), dtype=float)
    # not equal bytes, because floating point results differ between machines
    assert np.abs(committed - drawn).mean() < 0.5
