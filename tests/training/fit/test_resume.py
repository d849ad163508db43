"""An interrupted training continues after its last complete epoch, and ends as if it had not been interrupted."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.support.killed_training import run_killed
from tests.support.small_config import SMALL
from vinegrape_handler.errors import SettingError
from vinegrape_training.experiments.cross_validation import CrossValidationPlan, cross_validate
from vinegrape_training.fit.config import compose_config
from vinegrape_training.fit.process import SIGTERM_STATUS
from vinegrape_training.fit.resume import last_checkpoint, last_epoch
from vinegrape_training.fit.run import Run
from vinegrape_training.fit.train import train

pytestmark = [pytest.mark.trains, pytest.mark.xdist_group("test_train")]

# Everything that draws random numbers or keeps a state: augmentation, MixUp, the running average
STATEFUL = (
    "data.batch_size=8",
    "trainer.max_epochs=4",
    "trainer.average_decay=0.9",
    "optimizer.mixup=0.2",
    "trainer.mode=max",  # the loss rises on so few images; so the weights of a late epoch are kept and compared
)
STEPS_PER_EPOCH = 3  # 30 training images, without the last, smaller batch


def settings(folder: Path, run: Path, *overrides: str) -> list[str]:
    return [*SMALL, *STATEFUL, f"data.dir={folder}", f"run_dir={run}", *overrides]


def train_whole(folder: Path, run: Path, *overrides: str) -> Run:
    return train(compose_config(settings(folder, run, *overrides))).run


def train_killed(place: str, folder: Path, run: Path, *overrides: str) -> None:
    run_killed(place, "train", *settings(folder, run, *overrides))


def facts(run: Path) -> dict[str, Any]:
    """All of run.json, and the log."""
    values = json.loads((run / "run.json").read_text())
    return values | {"log": (run / "logs" / "metrics.csv").read_text()}


def assert_same_end(resumed: Path, whole: Path) -> None:
    """Assert that two runs have the same files, with the same weights, metrics and log."""
    assert (resumed / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()
    assert facts(resumed) == facts(whole)
    names = [sorted(str(path.relative_to(run)) for path in run.rglob("*")) for run in (resumed, whole)]
    assert names[0] == names[1]


@pytest.fixture(scope="module")
def whole(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four epochs without an interruption."""
    return train_whole(drawn, tmp_path_factory.mktemp("whole") / "run").folder


@pytest.fixture(scope="module")
def interrupted(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, killed in the third epoch. Tests work on copies, at the same path, because it is a setting."""
    folder = tmp_path_factory.mktemp("interrupted") / "run"
    train_killed(f"step {2 * STEPS_PER_EPOCH + 1}", drawn, folder)
    return folder


@pytest.fixture
def run(interrupted: Path, tmp_path: Path) -> Any:
    """The interrupted run, which is restored after the test."""
    shutil.copytree(interrupted, tmp_path / "copy")
    yield interrupted
    shutil.rmtree(interrupted)
    shutil.copytree(tmp_path / "copy", interrupted)


def test_a_killed_run_ends_as_one_that_was_not_killed(
    run: Path, whole: Path, drawn: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert last_epoch(last_checkpoint(run)) == 1
    resumed = train_whole(drawn, run)
    assert f"{run}: continuing after epoch 2 of 4" in capfd.readouterr().err
    assert resumed.metrics["epochs"] == 4
    assert_same_end(run, whole)


def test_with_other_random_numbers_it_would_end_with_other_weights(run: Path, whole: Path, drawn: Path) -> None:
    path = last_checkpoint(run)
    checkpoint = torch.load(path, weights_only=True)
    (states,) = checkpoint["vinegrape"]["generators"]
    states["torch"] = torch.manual_seed(5).get_state()
    torch.save(checkpoint, path)
    train_whole(drawn, run)
    assert (run / "weights.safetensors").read_bytes() != (whole / "weights.safetensors").read_bytes()


def test_a_run_without_a_complete_epoch_starts_again(whole: Path, drawn: Path, tmp_path: Path) -> None:
    train_killed("step 1", drawn, tmp_path / "run", "trainer.max_epochs=9")  # its settings do not matter
    train_whole(drawn, tmp_path / "run")
    assert_same_end(tmp_path / "run", whole)


def test_a_run_that_had_stopped_early_does_not_train_on(drawn: Path, tmp_path: Path) -> None:
    # 10 validation images: accuracy rises at most 10 times
    early = ("trainer.monitor=validation/accuracy", "trainer.mode=max", "trainer.patience=0", "trainer.max_epochs=20")
    train_killed("measure", drawn, tmp_path / "run", *early)
    resumed, whole = (train_whole(drawn, tmp_path / name, *early) for name in ("run", "whole"))
    assert resumed.metrics["epochs"] < 20
    assert_same_end(resumed.folder, whole.folder)


def test_an_unfinished_run_with_other_settings_is_not_overwritten(run: Path, drawn: Path) -> None:
    message = r"unfinished run with other settings: optimizer.mixup is 0.2, now 0.3; seed is 0, now 1\. Continue it"
    with pytest.raises(SettingError, match=message):
        train_whole(drawn, run, "optimizer.mixup=0.3", "seed=1")
    assert last_checkpoint(run).is_file()


def test_an_unfinished_run_does_not_continue_with_other_images(run: Path, drawn: Path) -> None:
    image = sorted(drawn.glob("*/*.png"))[0]
    before = image.read_bytes()
    Image.new("RGB", (64, 64), "red").save(image)
    try:
        with pytest.raises(SettingError, match="unfinished run with other images or another split"):
            train_whole(drawn, run)
    finally:
        image.write_bytes(before)


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.nightly)])
def test_sigterm_stops_a_training_with_its_own_exit_code(processes: int, drawn: Path, tmp_path: Path) -> None:
    command = [Path(sys.executable).with_name("vinegrape"), "train"]
    long = ("trainer.max_epochs=2000", "trainer.patience=2000", "data.batch_size=4", f"trainer.devices={processes}")
    process = subprocess.Popen(
        [*command, *settings(drawn, tmp_path / "run", *long)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not last_checkpoint(tmp_path / "run").is_file():
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    _, errors = process.communicate()
    assert process.returncode == SIGTERM_STATUS == 128 + signal.SIGTERM
    assert "Stopped by SIGTERM; the same command continues." in errors.splitlines()
    assert last_epoch(last_checkpoint(tmp_path / "run")) >= 0


EVALUATION = ("--seed", "1", "--folds", "2", "--no-int8")


def evaluate(overrides: list[str], folder: Path) -> None:
    cross_validate(compose_config(overrides), folder, CrossValidationPlan((1,), 2), int8=False)


@pytest.fixture(scope="module")
def recipe(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides of an evaluation with outliers and shared outputs of the frozen stages."""
    foreign = tmp_path_factory.mktemp("foreign")
    for kind in (f"things/{source}/1.png" for source in "abcdef"):
        (foreign / kind).parent.mkdir(parents=True)
        Image.new("RGB", (32, 32), "navy").save(foreign / kind)
    network = ("model=mobilenetv2_100", "model.architecture=mobilenetv2_035", "model.frozen_stages=2")
    overrides = [*SMALL, *STATEFUL, *network, "optimizer.mixup=0", "trainer.max_epochs=3", "outliers.per_batch=2"]
    return [*overrides, f"data.dir={drawn}", f"outliers.dir={foreign}"]


@pytest.fixture(scope="module")
def whole_evaluation(recipe: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole_evaluation")
    evaluate(recipe, folder)
    return folder


@pytest.mark.parametrize(("place", "epochs"), [(f"step {STEPS_PER_EPOCH + 1}", 1), ("write", 3)])
def test_an_evaluation_continues_the_fold_that_was_killed(
    place: str,
    epochs: int,
    recipe: list[str],
    whole_evaluation: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A fold has no validation images, so the running average of the last epoch is kept."""
    run_killed(place, "evaluate", tmp_path, *EVALUATION, *recipe)
    evaluate(recipe, tmp_path)
    assert capfd.readouterr().err.count(f"continuing after epoch {epochs} of 3") == 1
    assert list((tmp_path / "stage_outputs").iterdir())
    for fold in ("seed-1/fold-0", "seed-1/fold-1"):
        assert_same_end(tmp_path / fold, whole_evaluation / fold)
        assert not (tmp_path / fold / "checkpoints").exists()


def test_a_killed_fold_of_other_settings_is_trained_again(drawn: Path, tmp_path: Path) -> None:
    overrides = [*SMALL, *STATEFUL, f"data.dir={drawn}"]
    run_killed(f"step {STEPS_PER_EPOCH}", "evaluate", tmp_path, *EVALUATION, *overrides)
    evaluate([*overrides, "trainer.max_epochs=2"], tmp_path)
    assert Run.read(tmp_path / "seed-1" / "fold-0").metrics["epochs"] == 2
