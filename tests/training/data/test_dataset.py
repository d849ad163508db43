from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support import icc
from vinegrape_training.data.dataset import folds, load_dataset, load_images, scan, split
from vinegrape_training.errors import DataError


def test_scan_sorts_classes_and_paths(colours: Path) -> None:
    dataset = scan(colours)
    assert dataset.classes == ("blue", "red")
    assert dataset.paths[:2] == ("blue/00.png", "blue/01.png")
    assert dataset.labels == (0,) * 10 + (1,) * 10
    assert dataset.labels_of(["red/03.png", "blue/00.png"]).tolist() == [1, 0]


def test_scan_names_what_it_passes_over(colours: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert len(scan(colours).paths) == 20
    assert not caplog.messages
    (colours / "red" / "leaf.heic").write_bytes(b"")
    (colours / "red" / ".hidden.png").write_bytes(b"")
    (colours / "red" / "more").mkdir()
    (colours / ".cache").mkdir()
    (colours / "LICENSE.png").write_bytes(b"")
    assert len(scan(colours).paths) == 20
    assert (
        "5 files or folders are not used: .cache/, LICENSE.png, red/.hidden.png, red/leaf.heic, red/more/. "
        in caplog.text
    )


def test_scan_counts_what_it_does_not_name_and_warns_once(colours: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(12):
        (colours / "red" / f"{number:02}.txt").write_text("text")
    scan(colours)
    scan(colours)
    (message,) = caplog.messages
    assert (
        "12 files or folders are not used: red/00.txt, red/01.txt, red/02.txt, red/03.txt, red/04.txt and 7 more."
        in message
    )


def test_scan_accepts_every_image_suffix_in_either_case(colours: Path) -> None:
    for suffix in ("JPG", "jpeg", "webp", "bmp", "TIF", "tiff"):
        Image.new("RGB", (8, 8)).save(colours / "red" / f"x.{suffix}")
    assert len(scan(colours).paths) == 26


def test_a_missing_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere is not a folder"):
        scan(tmp_path / "nowhere")


def test_one_class_is_reported_as_too_few(tmp_path: Path) -> None:
    (tmp_path / "red").mkdir()
    with pytest.raises(DataError, match="holds 1 folders"):
        scan(tmp_path)


def test_a_class_without_images_is_reported(colours: Path) -> None:
    (colours / "green").mkdir()
    with pytest.raises(DataError, match=r"green holds no image"):
        scan(colours)


def test_the_digest_is_the_sha256_of_the_documented_lines(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(name.encode())
    lines = "".join(f"{name}/1.png\0{hashlib.sha256(name.encode()).hexdigest()}\n" for name in ("a", "b"))
    assert scan(tmp_path).digest() == hashlib.sha256(lines.encode()).hexdigest()


def test_the_digest_changes_with_a_byte_and_with_a_name(colours: Path) -> None:
    digests = [scan(colours).digest()]
    image = colours / "red" / "00.png"
    image.write_bytes(image.read_bytes() + b"\0")
    digests.append(scan(colours).digest())
    image.rename(colours / "red" / "99.png")
    digests.append(scan(colours).digest())
    assert len(set(digests)) == 3


def test_split_is_stratified_and_disjoint(colours: Path) -> None:
    dataset = scan(colours)
    parts = split(dataset, seed=0, validation_fraction=0.2, test_fraction=0.3)
    for paths, count in ((parts.train, 5), (parts.validation, 2), (parts.test, 3)):
        assert Counter(path.split("/")[0] for path in paths) == {"blue": count, "red": count}
    assert sorted(parts.train + parts.validation + parts.test) == list(dataset.paths)


def test_a_split_depends_only_on_the_seed_and_the_paths(colours: Path) -> None:
    dataset = scan(colours)
    backwards = replace(dataset, paths=dataset.paths[::-1], labels=dataset.labels[::-1])
    first = split(dataset, 7, 0.2, 0.2)
    assert split(backwards, 7, 0.2, 0.2) == first
    assert split(dataset, 8, 0.2, 0.2) != first


def test_every_part_of_a_split_holds_every_class(colours: Path) -> None:
    for index in range(3, 10):
        (colours / "red" / f"{index:02}.png").unlink()
    parts = split(scan(colours), 0, 0.15, 0.2)
    for paths in (parts.train, parts.validation, parts.test):
        assert sum(path.startswith("red") for path in paths) == 1


def test_a_class_that_is_too_small_to_split_is_reported(colours: Path) -> None:
    for index in range(2, 10):
        (colours / "red" / f"{index:02}.png").unlink()
    with pytest.raises(DataError, match="Class red has 2 images"):
        split(scan(colours), 0, 0.15, 0.2)


@pytest.mark.parametrize(("validation", "test"), [(0.0, 0.2), (0.2, 0.0), (0.5, 0.5), (-0.1, 0.2)])
def test_invalid_fractions_are_reported(colours: Path, validation: float, test: float) -> None:
    with pytest.raises(DataError, match="together below 1"):
        split(scan(colours), 0, validation, test)


def test_every_image_is_a_test_image_in_one_fold_and_a_training_image_in_the_others(colours: Path) -> None:
    dataset = scan(colours)
    parts = folds(dataset, seed=0, count=5)
    assert sorted(path for part in parts for path in part.test) == list(dataset.paths)
    for part in parts:
        assert Counter(path.split("/")[0] for path in part.test) == {"blue": 2, "red": 2}
        assert sorted(part.train + part.test) == list(dataset.paths)
        assert part.validation == ()


def test_fold_sizes_differ_by_at_most_one_image_per_class(colours: Path) -> None:
    sizes = [len(part.test) for part in folds(scan(colours), seed=0, count=4)]
    assert sorted(sizes) == [4, 5, 5, 6]


def test_folds_depend_only_on_the_seed_and_the_paths(colours: Path) -> None:
    dataset = scan(colours)
    backwards = replace(dataset, paths=dataset.paths[::-1], labels=dataset.labels[::-1])
    first = [set(part.test) for part in folds(dataset, 7, 5)]
    assert [set(part.test) for part in folds(backwards, 7, 5)] == first
    assert [set(part.test) for part in folds(dataset, 8, 5)] != first


@pytest.mark.parametrize("count", [1, 11])
def test_an_impossible_number_of_folds_is_reported(colours: Path, count: int) -> None:
    with pytest.raises(DataError, match=f"Class blue has 10 images; {count} folds are not possible"):
        folds(scan(colours), 0, count)


def test_a_data_set_is_decoded_once_and_read_only(colours: Path) -> None:
    dataset = scan(colours)
    first = load_dataset(dataset, 16, "bilinear")
    assert load_dataset(dataset, 16, "bilinear") is first
    assert not first.flags.writeable
    assert load_dataset(dataset, 8, "bilinear").shape == (20, 8, 8, 3)


def test_images_are_decoded_resized_and_in_order(colours: Path) -> None:
    images = load_images(colours, ["red/00.png", "blue/05.png"], 16, "bilinear")
    assert images.shape == (2, 16, 16, 3)
    assert images.dtype == np.uint8
    assert (images[0] == (255, 0, 0)).all()
    assert (images[1] == (0, 0, 250)).all()


def test_transparent_pixels_become_white_as_in_the_server(colours: Path) -> None:
    image = Image.new("RGBA", (32, 32), (9, 9, 9, 0))
    image.paste((0, 0, 0, 255), (0, 0, 32, 16))
    image.save(colours / "red" / "clear.png")
    found = load_images(colours, ["red/clear.png"], 32, "bicubic")
    assert (found[0, :16] == 0).all()
    assert (found[0, 16:] == 255).all()


def test_colours_become_srgb_as_in_the_server(colours: Path) -> None:
    """Linear 128 is 188 in sRGB."""
    profile = icc.matrix_profile(icc.SRGB, icc.gamma_curve(1))
    Image.new("RGB", (16, 16), (128, 128, 128)).save(colours / "red" / "linear.png", icc_profile=profile)
    assert (load_images(colours, ["red/linear.png"], 16, "bicubic") == 188).all()


def test_an_image_that_cannot_be_decoded_is_reported(colours: Path) -> None:
    broken = colours / "red" / "04.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(DataError, match=r"red/04\.png cannot be decoded"):
        load_images(colours, scan(colours).paths, 16, "bilinear")
