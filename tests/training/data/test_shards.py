from __future__ import annotations

import io
import json
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from vinegrape_training.data.dataset import scan, split
from vinegrape_training.data.shards import ShardedDataset, read_index, write_shards
from vinegrape_training.errors import DataError

SHARD_BYTES = 1000  # eight or nine of the small images


@pytest.fixture
def shards(colours: Path, tmp_path: Path) -> ShardedDataset:
    """The shards of 20 images."""
    return write_shards(colours, str(tmp_path / "shards"), SHARD_BYTES)


def test_shards_are_the_data_set_of_the_folder(colours: Path, shards: ShardedDataset) -> None:
    """So the same images train and test, and the digest that a run records is the same."""
    folder = scan(colours)
    assert (shards.classes, shards.paths, shards.labels) == (folder.classes, folder.paths, folder.labels)
    assert shards.digest() == folder.digest()
    assert list(shards.file_digests()) == list(folder.file_digests())
    assert split(shards, 3, 0.15, 0.2) == split(folder, 3, 0.15, 0.2)


def test_each_image_is_in_one_shard_unchanged(colours: Path, shards: ShardedDataset) -> None:
    assert len(shards.shards) > 1
    read = list(shards.read(range(len(shards.shards)), range(20)))
    assert [index for index, _ in read] == [index for shard in shards.shards for index in shard]
    assert dict(read) == {index: (colours / path).read_bytes() for index, path in enumerate(shards.paths)}


def test_a_shard_is_a_tar_file_of_images_of_all_classes(shards: ShardedDataset) -> None:
    with tarfile.open(Path(shards.location) / "000000.tar") as file:
        names = file.getnames()
        with Image.open(io.BytesIO(file.extractfile(names[0]).read())) as image:  # type: ignore[union-attr]
            assert image.size == (32, 32)
    assert names == [f"{index:08}.png" for index in shards.shards[0]]
    assert {shards.labels[index] for index in shards.shards[0]} == {0, 1}


def test_some_images_of_some_shards_are_read_in_the_given_order(shards: ShardedDataset) -> None:
    last, first = shards.shards[1][-1], shards.shards[0][0]
    assert [index for index, _ in shards.read([1, 0], {first, last})] == [last, first]


def test_the_same_images_give_the_same_bytes(colours: Path, shards: ShardedDataset, tmp_path: Path) -> None:
    again = write_shards(colours, str(tmp_path / "again"), SHARD_BYTES)
    for path in Path(shards.location).iterdir():
        assert (Path(again.location) / path.name).read_bytes() == path.read_bytes()


def test_names_may_have_any_characters(tmp_path: Path) -> None:
    for name in ("St. Laurent/a.b.c.PNG", "100%s Öküzgözü/a.. 1.png", "100%s Öküzgözü/__x__.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / name)
    folder = scan(tmp_path / "images")
    shards = write_shards(tmp_path / "images", str(tmp_path / "50%d shards"), SHARD_BYTES)
    assert (shards.paths, shards.digest()) == (folder.paths, folder.digest())
    assert len(list(shards.read(range(len(shards.shards)), range(3)))) == 3


def test_a_folder_that_is_not_empty_is_not_overwritten(colours: Path, shards: ShardedDataset) -> None:
    with pytest.raises(DataError, match=r"exists and is not an empty folder. Give the name of a new folder"):
        write_shards(colours, shards.location, SHARD_BYTES)


def test_a_url_is_opened_by_the_program_that_webdataset_has_for_it(
    colours: Path, shards: ShardedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in for gsutil copies to and from a folder, with gsutil's arguments."""
    script = tmp_path / "bin" / "gsutil"
    script.parent.mkdir()
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    script.write_text(f"""#!/bin/sh
case "$1" in
cat) exec cat "{bucket}/${{2##*/}}" ;;
cp) exec cat > "{bucket}/${{3##*/}}" ;;
esac
""")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:/usr/bin:/bin")
    written = write_shards(colours, "gs://bucket/shards", SHARD_BYTES)
    assert written.digest() == shards.digest()
    assert len(list(written.read(range(len(written.shards)), range(20)))) == 20
    (bucket / "000000.tar").unlink()
    with pytest.raises(DataError, match=r"gs://bucket/shards are not complete"):
        list(written.read([0], set(written.shards[0])))


def test_a_missing_or_shortened_shard_is_an_error(shards: ShardedDataset) -> None:
    path = Path(shards.location) / "000001.tar"
    images = set(shards.shards[1])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 3])
    with pytest.raises(DataError, match=r"000001.tar .* Write them again: vinegrape data shard"):
        list(shards.read([1], images))
    path.unlink()
    with pytest.raises(DataError, match=r"000001.tar failed: FileNotFoundError"):
        list(shards.read([1], images))
    with pytest.raises(DataError, match=r"000000.tar hold \d+ of 20 images of the index"):
        list(shards.read([0], range(20)))


def test_without_a_valid_index_there_are_no_shards(shards: ShardedDataset, colours: Path) -> None:
    with pytest.raises(DataError, match=r"is not an index of shards .* vinegrape data shard FOLDER"):
        read_index(str(colours))
    (Path(shards.location) / "shards.json").write_text(json.dumps({"classes": ["red"], "shards": [[["blue/1", "0"]]]}))
    with pytest.raises(DataError, match=r"is not an index of shards"):
        read_index(shards.location)


def test_shards_are_not_read_as_a_folder_of_images(shards: ShardedDataset) -> None:
    with pytest.raises(DataError, match=r"holds shards, which only `vinegrape train data=shards` reads"):
        scan(Path(shards.location))


def test_a_missing_package_is_named(shards: ShardedDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(DataError, match=r"Shards need the package webdataset .*: pip install webdataset"):
        read_index(shards.location)
