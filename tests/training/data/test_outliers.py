from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from vinegrape_training.data.outliers import (
    Outlier,
    OutlierDraw,
    Outliers,
    load_outliers,
    outlier_folds,
    scan_outliers,
)
from vinegrape_training.errors import DataError


def draw(folder: Path, *paths: str) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "navy").save(folder / path)
    return folder


def leaf(number: int, source: str, species: str) -> Outlier:
    return Outlier(f"leaves/{source}-{species}-{number}.png", "leaves", source, species)


def test_kinds_are_the_first_folders_and_sources_the_folders_of_the_images(tmp_path: Path) -> None:
    draw(tmp_path, "things/a.png", "leaves/oak/1.png", "leaves/ash/1.png")
    outliers = scan_outliers(tmp_path)
    assert outliers.paths == ("leaves/ash/1.png", "leaves/oak/1.png", "things/a.png")
    assert outliers.kinds == ("leaves", "leaves", "things")
    assert [image.source for image in outliers.images] == ["leaves/ash", "leaves/oak", "things"]


def test_a_manifest_states_source_and_species(tmp_path: Path) -> None:
    draw(tmp_path, "leaves/1.png", "leaves/2.png")
    (tmp_path / "manifest.csv").write_text("file,repository,species\nleaves/1.png,someone/leaves,oak\n")
    first, second = scan_outliers(tmp_path).images
    assert (first.source, first.species) == ("someone/leaves", "oak")
    assert (second.source, second.species) == ("leaves", "")


def test_a_folder_without_images_is_an_error_that_says_what_it_must_hold(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no images. It must hold one folder of images per kind"):
        scan_outliers(tmp_path)
    with pytest.raises(DataError, match=r"outliers\.dir=.*missing is not a folder"):
        scan_outliers(tmp_path / "missing")


def test_the_digest_changes_with_paths_and_contents(tmp_path: Path) -> None:
    draw(tmp_path, "things/a.png", "things/b.png")
    digest = scan_outliers(tmp_path).digest()
    (tmp_path / "things/b.png").rename(tmp_path / "things/c.png")
    renamed = scan_outliers(tmp_path).digest()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "things/c.png")
    assert len({digest, renamed, scan_outliers(tmp_path).digest()}) == 3


def test_each_image_is_held_out_once_with_its_source_and_once_with_its_species() -> None:
    images = [leaf(number, f"source{number % 4}", f"species{number % 12}") for number in range(48)]
    outliers = Outliers(Path(), tuple(images))
    folds = outlier_folds(outliers, seed=1, count=4)
    for part in ("new_source", "new_species"):
        held_out = [path for fold in folds for path in getattr(fold, part)]
        assert sorted(held_out) == sorted(outliers.paths)
    by_path = {image.path: image for image in images}
    for fold in folds:
        assert not set(fold.train) & {*fold.new_source, *fold.new_species}
        sources = {by_path[path].source for path in fold.train}
        species = {by_path[path].species for path in fold.train}
        assert not sources & {by_path[path].source for path in fold.new_source}
        assert not species & {by_path[path].species for path in (*fold.new_source, *fold.new_species)}


def test_too_few_outliers_are_an_error() -> None:
    outliers = Outliers(Path("foreign"), (leaf(0, "a", "oak"),))
    with pytest.raises(
        DataError, match="foreign has 1 images of too few sources and species: one of 2 folds holds all"
    ):
        outlier_folds(outliers, seed=1, count=2)


def test_sources_that_share_a_species_are_held_out_together() -> None:
    images = [leaf(0, "a", "oak"), leaf(0, "b", "oak"), leaf(0, "b", "ash")]
    images += [leaf(0, source, f"species of {source}") for source in "cdefgh"]
    folds = outlier_folds(Outliers(Path(), tuple(images)), seed=1, count=3)
    together = {image.path for image in images[:3]}
    assert any(together <= set(fold.new_source) for fold in folds)


def test_the_split_depends_on_the_seed_only() -> None:
    images = tuple(leaf(number, f"source{number}", f"species{number}") for number in range(20))
    first, again, other = (outlier_folds(Outliers(Path(), images), seed, 4) for seed in (1, 1, 2))
    assert first == again != other


def test_a_kind_with_four_times_the_images_is_drawn_twice_as_often() -> None:
    torch.manual_seed(0)
    drawn = OutlierDraw(["large"] * 4 + ["small"], per_batch=9000).indices()
    assert len(drawn) == 9000
    assert (drawn < 4).sum() / (drawn == 4).sum() == pytest.approx(2, rel=0.1)


def test_images_are_loaded_with_their_opacity(tmp_path: Path) -> None:
    pixels = load_outliers(scan_outliers(draw(tmp_path, "things/a.png")), 16, "bilinear")
    assert pixels.shape == (1, 16, 16, 4)
    assert pixels[0, 8, 8].tolist() == [0, 0, 128, 255]
