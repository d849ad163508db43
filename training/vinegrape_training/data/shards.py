"""Shards: the images of a data set in tar files, which training reads from one end to the other, and their index.

WebDataset writes and reads them, and not LitData: any program can read a tar file, while LitData has a format of its
own and many more dependencies.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vinegrape_training.data.dataset import Dataset, read_file, scan
from vinegrape_training.data.image_folder import SHARDS_INDEX
from vinegrape_training.errors import DataError
from vinegrape_training.progress import progress


@dataclass(frozen=True)
class ShardedDataset(Dataset):
    """The images of a data set in shards. Its paths, classes and digest are those of the folder that was sharded.

    Attributes:
        location: folder of the shards, or its URL.
        digests: SHA-256 of each image's file.
        shards: per tar file, the indices of its images in `paths`, in the order of the file.
    """

    location: str
    digests: tuple[str, ...]
    shards: tuple[tuple[int, ...], ...]

    def file_digests(self) -> Sequence[str]:
        """Return what `Dataset.file_digests` returns for the folder, without reading the images."""
        return self.digests

    def read(self, shards: Iterable[int], wanted: Collection[int]) -> Iterator[tuple[int, bytes]]:
        """Read some images, in the order of the tar files.

        Args:
            shards: numbers of the tar files to read, in this order.
            wanted: indices of the images to return.

        Returns:
            The index and the file of each image.

        Raises:
            DataError: a tar file cannot be read, or an image is missing.
        """
        webdataset = _webdataset()
        urls = [_shard(self.location, number) for number in shards]
        streams = webdataset.tariterators.url_opener({"url": url} for url in urls)
        files = webdataset.tariterators.tar_file_expander(
            streams, select_files=lambda name: _index_of(name) in wanted, eof_value=None
        )
        count = 0
        try:
            for file in files:
                yield _index_of(file["fname"]), file["data"]
                count += 1
        except (OSError, tarfile.TarError) as error:
            raise _incomplete(self.location, f"reading {', '.join(urls)} failed: {error!r}") from error
        if count != len(wanted):
            raise _incomplete(self.location, f"{', '.join(urls)} hold {count} of {len(wanted)} images of the index")


def write_shards(folder: Path, location: str, shard_bytes: int) -> ShardedDataset:
    """Write the images of a folder into shards, in random order, so that each shard has images of all classes.

    The order is always the same. The index is written last.

    Args:
        folder: holds one folder of images per class.
        location: a folder to create, or a URL such as "gs://BUCKET/FOLDER".
        shard_bytes: a shard that has reached this size is complete.

    Raises:
        DataError: `folder` is not such a folder, or the folder `location` is not empty.
    """
    webdataset = _webdataset()
    location = absolute(location)
    if "://" not in location:
        target = Path(location)
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise DataError(f"{target} exists and is not an empty folder. Give the name of a new folder.")
        target.mkdir(parents=True, exist_ok=True)
    dataset = scan(folder)
    digests = [""] * len(dataset.paths)
    shards: list[list[int]] = []
    pattern = _join(location.replace("%", "%%"), "%06d.tar")
    with webdataset.ShardWriter(
        pattern, maxcount=len(dataset.paths), maxsize=shard_bytes, encoder=False, mtime=0, verbose=0
    ) as writer:
        order = np.random.default_rng(0).permutation(len(dataset.paths)).tolist()
        for index in progress(order, "Writing shards"):
            path = dataset.paths[index]
            data = read_file(folder / path)
            writer.write({"__key__": f"{index:08}", Path(path).suffix[1:].lower(): data})
            if writer.count == 1:  # the first image of a shard
                shards.append([])
            shards[-1].append(index)
            digests[index] = hashlib.sha256(data).hexdigest()
    images = [[(dataset.paths[index], digests[index]) for index in shard] for shard in shards]
    lines = ",\n".join(json.dumps(shard, separators=(",", ":"), ensure_ascii=False) for shard in images)
    text = f'{{"classes":{json.dumps(dataset.classes, ensure_ascii=False)},\n"shards":[\n{lines}\n]}}\n'
    with webdataset.gopen(_join(location, SHARDS_INDEX), "wb") as file:
        file.write(text.encode())
    return read_index(location)


def read_index(location: str) -> ShardedDataset:
    """Read the index of shards. The tar files are not read.

    Args:
        location: folder of the shards, or its URL.

    Raises:
        DataError: there is no index, or it is not valid.
    """
    location = absolute(location)
    index = _join(location, SHARDS_INDEX)
    try:
        with _webdataset().gopen(index, "rb") as file:
            values = json.loads(file.read())
        images = [(path, digest, number) for number, shard in enumerate(values["shards"]) for path, digest in shard]
        classes = tuple(values["classes"])
        paths, digests, _ = zip(*sorted(images), strict=True)
        labels = tuple(classes.index(path.partition("/")[0]) for path in paths)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{index} is not an index of shards ({error!r}). Write shards with: vinegrape data shard FOLDER {location}"
        ) from error
    place = {path: index for index, path in enumerate(paths)}
    shards = tuple(tuple(place[path] for path, _ in shard) for shard in values["shards"])
    return ShardedDataset(Path(location), classes, paths, labels, location, digests, shards)


def absolute(location: str) -> str:
    """Return the absolute path of a folder; a URL stays as it is."""
    return location if "://" in location else str(Path(location).absolute())


def _shard(location: str, number: int) -> str:
    return _join(location, f"{number:06}.tar")


def _join(location: str, name: str) -> str:
    return f"{location.rstrip('/')}/{name}"


def _index_of(name: str) -> int:
    """Return the index of the image with this name in a tar file; -1 if it is not one of ours."""
    stem = name.partition(".")[0]
    return int(stem) if stem.isdecimal() else -1


def _incomplete(location: str, reason: str) -> DataError:
    return DataError(f"The shards in {location} are not complete: {reason}. Write them again: vinegrape data shard")


def _webdataset() -> Any:
    """Import WebDataset, which only shards need."""
    try:
        import webdataset
        import webdataset.tariterators
    except ImportError as error:
        raise DataError(f"Shards need the package webdataset ({error}): pip install webdataset") from error
    return webdataset
