from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.support.colours import draw_colours
from tests.support.small_config import compose_config
from vinegrape_handler.errors import SettingError
from vinegrape_training.data.augmentation.settings import Augmentation
from vinegrape_training.data.datamodule import LeavesDataModule
from vinegrape_training.data.dataset import Split, load_dataset, scan
from vinegrape_training.data.opacity import load_opacity
from vinegrape_training.data.shards import ShardedDataset, write_shards
from vinegrape_training.data.streaming import ShardsDataModule, StreamSettings
from vinegrape_training.errors import DataError

SIDE, BATCH = 16, 4
AUGMENTATION = Augmentation(**compose_config().augmentation)


@pytest.fixture(scope="module")
def leaves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 images of two classes."""
    return draw_colours(tmp_path_factory.mktemp("leaves") / "colours", 50)


@pytest.fixture(scope="module")
def dataset(leaves: Path, tmp_path_factory: pytest.TempPathFactory) -> ShardedDataset:
    shards = write_shards(leaves, str(tmp_path_factory.mktemp("shards") / "shards"), 1500)
    assert len(shards.shards) >= 6
    return shards


def parts_of(dataset: ShardedDataset, train: int) -> Split:
    """The first images train, the next 13 validate, and the next 10 test."""
    paths = dataset.paths[::2] + dataset.paths[1::2]  # of both classes
    return Split(paths[:train], paths[train : train + 13], paths[train + 13 : train + 23])


def module(
    dataset: ShardedDataset,
    train: int = 64,
    workers: int = 2,
    seed: int = 0,
    epoch: int = 0,
    rank: int = 0,
    ranks: int = 1,
) -> ShardsDataModule:
    """A data module in one process of a training."""
    settings = StreamSettings(workers, shuffle_buffer=10)
    data = ShardsDataModule(
        dataset, parts_of(dataset, train), (SIDE, "bilinear"), AUGMENTATION, BATCH, settings, seed
    )  # fmt: skip
    trainer = SimpleNamespace(current_epoch=epoch, global_rank=rank, world_size=ranks, training=True)
    data.trainer = trainer  # type: ignore[assignment]
    return data


def train_order(data: ShardsDataModule) -> list[list[int]]:
    """The indices of the images of each training batch."""
    loader = data.train_dataloader()
    batches = [indices.tolist() for _, _, indices in loader]
    assert len(batches) == len(loader)
    return batches


@pytest.mark.parametrize(("workers", "ranks"), [(0, 1), (2, 1), (2, 2), (3, 4)])
def test_workers_and_processes_read_each_training_image_once(dataset: ShardedDataset, workers: int, ranks: int) -> None:
    batches = [train_order(module(dataset, workers=workers, rank=rank, ranks=ranks)) for rank in range(ranks)]
    assert {len(of_rank) for of_rank in batches} == {64 // BATCH // ranks}
    read = [index for of_rank in batches for batch in of_rank for index in batch]
    assert sorted(read) == sorted(dataset.indices_of(parts_of(dataset, 64).train))


def test_images_that_fill_no_batch_of_all_processes_are_left_out(dataset: ShardedDataset) -> None:
    batches = [train_order(module(dataset, train=71, rank=rank, ranks=2)) for rank in (0, 1)]
    assert [len(of_rank) for of_rank in batches] == [8, 8]
    read = [index for of_rank in batches for batch in of_rank for index in batch]
    assert len(set(read)) == len(read) == 64
    assert set(read) < set(dataset.indices_of(parts_of(dataset, 71).train))
    later = [index for rank in (0, 1) for batch in train_order(module(dataset, 71, epoch=1, rank=rank, ranks=2))
             for index in batch]  # fmt: skip
    assert set(later) != set(read)


def test_the_only_batch_is_kept_even_if_it_is_smaller(dataset: ShardedDataset) -> None:
    (batch,) = train_order(module(dataset, train=3))
    assert sorted(batch) == sorted(dataset.indices_of(parts_of(dataset, 3).train))


def test_the_order_depends_on_seed_and_epoch_only(dataset: ShardedDataset) -> None:
    first = train_order(module(dataset))
    assert train_order(module(dataset)) == first
    assert train_order(module(dataset, epoch=1)) != first
    assert train_order(module(dataset, seed=1)) != first


def test_images_are_shuffled(dataset: ShardedDataset) -> None:
    """Neighbours in the epoch are not neighbours in the shards, and batches hold both classes."""
    written = {index: place for place, index in enumerate(index for shard in dataset.shards for index in shard)}
    batches = train_order(module(dataset, workers=0))
    places = [written[index] for batch in batches for index in batch]
    steps = [abs(after - before) for before, after in pairwise(places)]
    assert sum(step == 1 for step in steps) < 16
    assert len([batch for batch in batches if {dataset.labels[index] for index in batch} == {0, 1}]) >= 10


def test_batches_hold_the_same_pixels_and_labels_as_those_in_memory(leaves: Path, dataset: ShardedDataset) -> None:
    parts, folder = parts_of(dataset, 64), scan(leaves)
    images, opacity = load_dataset(folder, SIDE, "bilinear"), load_opacity(folder, SIDE, "bilinear")
    memory = LeavesDataModule(folder, images, opacity, parts, AUGMENTATION, BATCH)
    pixels, labels, indices = (torch.cat(values) for values in zip(*module(dataset).train_dataloader(), strict=True))
    order = torch.tensor(dataset.indices_of(parts.train))
    places = {index: place for place, index in enumerate(indices.tolist())}
    sorting = [places[index] for index in order.tolist()]
    assert torch.equal(pixels[sorting], memory.train.tensors[0])
    assert torch.equal(labels[sorting], memory.train.tensors[1])
    for part, in_memory in (("validation", memory.validation), ("test", memory.test)):
        batches = module(dataset).evaluation_batches(part)  # type: ignore[arg-type]
        pixels, labels, places_in_split = (torch.cat(values) for values in zip(*batches, strict=True))
        sorting = places_in_split.argsort().tolist()
        assert sorted(places_in_split.tolist()) == list(range(len(in_memory)))
        assert torch.equal(pixels[sorting], in_memory.tensors[0])
        assert torch.equal(labels[sorting], in_memory.tensors[1])


def test_a_training_batch_is_augmented_as_one_from_memory(dataset: ShardedDataset) -> None:
    data = module(dataset)
    batch = next(iter(data.train_dataloader()))
    images, labels = data.on_after_batch_transfer(data.on_before_batch_transfer(batch, 0), 0)
    assert (images.shape, images.dtype) == ((BATCH, 3, SIDE, SIDE), torch.float32)
    assert torch.equal(labels, batch[1])


@pytest.mark.parametrize("ranks", [1, 2])
def test_processes_validate_equally_many_batches_and_every_image(dataset: ShardedDataset, ranks: int) -> None:
    read = []
    for rank in range(ranks):
        batches = list(module(dataset, rank=rank, ranks=ranks).val_dataloader())
        assert len(batches) == (4 if ranks == 1 else 2)
        read += [index for _, _, indices in batches for index in indices.tolist()]
    assert len(read) == (13 if ranks == 1 else 14)
    assert set(read) == set(dataset.indices_of(parts_of(dataset, 64).validation))


def test_a_broken_image_is_named(leaves: Path, tmp_path: Path) -> None:
    folder = draw_colours(tmp_path / "broken", 4)
    (folder / "red" / "02.png").write_bytes((folder / "red" / "02.png").read_bytes()[:60])
    shards = write_shards(folder, str(tmp_path / "shards"), 10**6)
    data = ShardsDataModule(
        shards, Split(shards.paths, (), ()), (SIDE, "bilinear"), AUGMENTATION, BATCH, StreamSettings(0, 10), 0
    )
    with pytest.raises(DataError, match=r"shards: red/02.png cannot be decoded \(.*\); repair or remove it"):
        list(data.train_dataloader())


@pytest.mark.parametrize(
    ("values", "message"),
    [((-1, 10), "data.workers is -1"), ((1, 0), "data.shuffle_buffer is 0; it must be a whole number from 1")],
)
def test_settings_are_checked(values: tuple[int, int], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        StreamSettings(*values)
