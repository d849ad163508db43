"""Training from shards, and from the same images in memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from lightning.fabric.plugins.environments.lightning import find_free_network_port

from tests.conftest import ROOT
from tests.support.processes import running
from tests.support.small_config import SMALL, compose_config
from vinegrape_handler.errors import SettingError
from vinegrape_training.data.dataset import load_images, scan, split
from vinegrape_training.data.shards import write_shards
from vinegrape_training.errors import DataError
from vinegrape_training.experiments.cross_validation import CrossValidationPlan, cross_validate
from vinegrape_training.export.export import export_run
from vinegrape_training.fit.run import Run
from vinegrape_training.fit.train import TrainResult, train

pytestmark = [pytest.mark.trains, pytest.mark.xdist_group("test_shards_training")]

TRAINING = ("trainer.max_epochs=6", "trainer.patience=6", "data.batch_size=8", "augmentation=light")


@pytest.fixture(scope="module")
def shards(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The 50 drawn leaves in several shards."""
    location = str(tmp_path_factory.mktemp("shards") / "shards")
    assert len(write_shards(drawn, location, 20_000).shards) > 3
    return location


@pytest.fixture(scope="module")
def result(shards: str, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    folder = tmp_path_factory.mktemp("runs") / "run"
    return train(compose_config("data=shards", f"data.dir={shards}", f"run_dir={folder}", *TRAINING))


def test_training_learns_from_shards(result: TrainResult, drawn: Path, shards: str) -> None:
    losses = [epoch["train/loss"] for epoch in result.history]
    assert len(losses) == 6
    assert losses[0] - losses[-1] > 0.3
    assert result.run.data_digest == scan(drawn).digest()
    assert str(result.run.data_dir) == shards
    assert {part: len(paths) for part, paths in vars(result.run.split).items()} == {
        "train": 30, "validation": 10, "test": 10
    }  # fmt: skip


def test_the_test_images_are_those_of_the_folder(result: TrainResult, drawn: Path) -> None:
    """Also in their order: the logits are those of the images of the split."""
    run, dataset = result.run, scan(drawn)
    assert run.split == split(dataset, 0, 0.15, 0.2)
    assert result.test is not None
    assert result.test.labels.tolist() == dataset.labels_of(run.split.test).tolist()
    images = torch.from_numpy(load_images(drawn, run.split.test, run.input_size, run.interpolation))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (run.mean, run.std))
    with torch.inference_mode():
        logits = result.model((images.permute(0, 3, 1, 2).float() / 255 - mean) / std)
    torch.testing.assert_close(logits, result.test.logits, rtol=0, atol=1e-4)


def test_the_same_seed_gives_the_same_weights(result: TrainResult, shards: str, tmp_path: Path) -> None:
    again = train(compose_config("data=shards", f"data.dir={shards}", f"run_dir={tmp_path / 'run'}", *TRAINING))
    assert again.history == result.history
    for name, value in result.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name


def test_only_training_reads_shards(result: TrainResult, shards: str, drawn: Path, tmp_path: Path) -> None:
    cfg = compose_config("data=shards", f"data.dir={shards}")
    with pytest.raises(SettingError, match=r"data=shards is only for `vinegrape train`. .* give data=folder"):
        cross_validate(cfg, tmp_path / "evaluation", CrossValidationPlan((1,), 2), int8=False)
    with pytest.raises(DataError, match=r"holds shards, .* Give the folder of images that they were made from"):
        export_run(result.run.folder, tmp_path / "export")
    with pytest.raises(DataError, match="holds shards"):
        train(compose_config(f"data.dir={shards}", f"run_dir={tmp_path / 'run'}"))


def test_two_processes_divide_the_shards(shards: str, tmp_path: Path) -> None:
    """Each process has two workers. No image is in both."""
    small = ("data=shards", f"data.dir={shards}", "data.batch_size=4", "debug=smoke", "trainer.limit_train_batches=1.0")
    two = ("trainer.num_nodes=2", f"run_dir={tmp_path / 'run'}")
    environment = os.environ | {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT)}
    environment["MASTER_PORT"] = str(find_free_network_port())
    program = [sys.executable, str(ROOT / "tests" / "support" / "recorded_training.py")]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                running(
                    [*program, str(tmp_path / f"{rank}.json"), *SMALL, *small, *two],
                    env=environment | {"NODE_RANK": str(rank)},
                )
            )
            for rank in (0, 1)
        ]
        assert [process.wait(240) for process in processes] == [0, 0]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first["parameters"] == second["parameters"]
    ours, theirs = first["epochs"][0], second["epochs"][0]
    assert len(ours) == len(theirs) == 12  # 15 images, in whole batches
    assert not set(ours) & set(theirs)
    assert Run.read(tmp_path / "run").metrics["test_images"] == 10


def test_the_command_writes_shards_that_the_command_trains_with(drawn: Path, tmp_path: Path) -> None:
    vinegrape = str(Path(sys.executable).with_name("vinegrape"))
    written = subprocess.run(
        [vinegrape, "data", "shard", str(drawn), "shards"], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout
    assert "Wrote 50 images in 1 shards to shards." in written
    subprocess.run(
        [vinegrape, "train", "data=shards", "data.dir=shards", "run_dir=run", *SMALL, "debug=smoke", "input_size=32"],
        cwd=tmp_path, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert Run.read(tmp_path / "run").data_dir == tmp_path / "shards"
