from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning import seed_everything
from PIL import Image

from tests.support.small_config import compose_config
from vinegrape_handler.errors import SettingError
from vinegrape_training.data.dataset import Split, folds, load_images, scan
from vinegrape_training.evaluation.predictions import Evaluation
from vinegrape_training.fit import train as train_module
from vinegrape_training.fit.run import Run
from vinegrape_training.fit.train import TrainResult, train
from vinegrape_training.models.factory import create_model

pytestmark = [pytest.mark.trains, pytest.mark.xdist_group("test_train")]


def train_on(folder: Path, run: Path, *overrides: str, parts: Split | None = None) -> TrainResult:
    steps = ("trainer.max_epochs=2", "data.batch_size=8")
    return train(compose_config(f"data.dir={folder}", f"run_dir={run}", *steps, *overrides), parts)


@pytest.fixture(scope="module")
def result(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """Two epochs on 50 synthetic leaves."""
    return train_on(drawn, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def other_seed(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """The shortest training, with seed 1, logged to TensorBoard."""
    folder = tmp_path_factory.mktemp("other_seed") / "run"
    return train_on(drawn, folder, "seed=1", "logger=tensorboard", "debug=smoke", "input_size=32")


@pytest.fixture(scope="module")
def unvalidated(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """Three epochs without validation images, on half of the leaves; the other half tests."""
    folder = tmp_path_factory.mktemp("unvalidated") / "run"
    return train_on(drawn, folder, "trainer.max_epochs=3", "trainer.patience=1", parts=folds(scan(drawn), 0, 2)[0])


@pytest.fixture(scope="module")
def averaged(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """The same, with a running average of the weights, and without test images."""
    parts = Split(folds(scan(drawn), 0, 2)[0].train, (), ())
    folder = tmp_path_factory.mktemp("averaged") / "run"
    return train_on(drawn, folder, "trainer.max_epochs=3", "trainer.average_decay=0.9", parts=parts)


def normalised(run: Run, folder: Path, paths: tuple[str, ...]) -> torch.Tensor:
    """Images of a run as its network expects them."""
    images = torch.from_numpy(load_images(folder, paths, run.input_size, run.interpolation))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (run.mean, run.std))
    return (images.permute(0, 3, 1, 2).float() / 255 - mean) / std


def test_two_colours_are_learned(colours: Path, tmp_path: Path) -> None:
    result = train_on(colours, tmp_path / "run", "trainer.max_epochs=10", "data.batch_size=4", "augmentation=light")
    assert result.run.metrics["validation_accuracy"] == 1.0
    assert result.run.metrics["test_accuracy"] == 1.0


def test_the_run_folder_is_complete(result: TrainResult) -> None:
    names = {path.name for path in result.run.folder.iterdir()}
    assert names >= {"run.json", "config.yaml", "weights.safetensors", "curves.png", "confusion.png", "checkpoints"}
    assert (result.run.folder / "logs" / "metrics.csv").read_text().count("\n") > 2
    with Image.open(result.run.folder / "curves.png") as curves:
        curves.verify()


def test_run_json_holds_the_facts_of_the_run(result: TrainResult, drawn: Path) -> None:
    values = json.loads((result.run.folder / "run.json").read_text())
    assert values["architecture"] == "small_cnn"
    assert values["classes"] == list(scan(drawn).classes)
    assert values["data_digest"] == scan(drawn).digest()
    assert values["data_dir"] == str(drawn)
    assert {part: len(paths) for part, paths in values["split"].items()} == {"train": 30, "validation": 10, "test": 10}
    assert values["libraries"]["torch"] == torch.__version__.split("+")[0]
    assert values["metrics"]["epochs"] == 2
    assert "seed: 0" in (result.run.folder / "config.yaml").read_text()


def test_a_run_is_read_as_it_was_written(result: TrainResult) -> None:
    assert Run.read(result.run.folder) == result.run


def test_the_loaded_model_is_the_trained_one(result: TrainResult, drawn: Path) -> None:
    run = Run.read(result.run.folder)
    images = normalised(run, drawn, run.split.test)
    with torch.inference_mode():
        logits = run.load_model()(images)
        torch.testing.assert_close(logits, result.model(images), rtol=0, atol=1e-4)
    correct = logits.argmax(dim=1).numpy() == scan(drawn).labels_of(run.split.test)
    assert correct.mean() == pytest.approx(run.metrics["test_accuracy"])


def test_the_stored_weights_are_float32(result: TrainResult) -> None:
    """Also if the network was trained in bfloat16."""
    assert {value.dtype for value in result.model.state_dict().values()} == {torch.float32, torch.int64}


def test_frozen_stages_keep_their_weights_and_statistics(drawn: Path, tmp_path: Path) -> None:
    """Lightning sets the network to training mode before each epoch; frozen batch norms must stay in eval mode."""
    overrides = ("model=mobilenetv2_100", "optimizer=adamw", "augmentation=light")
    parts = Split(folds(scan(drawn), 0, 2)[0].train, (), ())  # no validation, so the last epoch's weights are kept
    trained = train_on(drawn, tmp_path / "run", *overrides, parts=parts).model.state_dict()
    seed_everything(0, workers=True, verbose=False)
    initial = create_model("mobilenetv2_100", 5, "none", 32).state_dict()
    changed = {name for name, value in trained.items() if not torch.equal(value, initial[name])}
    frozen = ("conv_stem", "bn1", "blocks.0", "blocks.1", "blocks.2", "blocks.3")
    assert not {name for name in changed if name.startswith(frozen)}
    assert {"blocks.4.0.conv_pw.weight", "blocks.4.0.bn1.running_mean", "conv_head.weight"} <= changed
    batches = trained["bn1.num_batches_tracked"].item(), trained["blocks.4.0.bn1.num_batches_tracked"].item()
    assert batches == (0, 6)  # 25 images make 3 full batches of 8 per epoch


def test_without_validation_images_the_last_epoch_is_kept(unvalidated: TrainResult, drawn: Path) -> None:
    run = unvalidated.run
    assert (len(unvalidated.history), run.temperature) == (3, 1.0)
    assert "validation_accuracy" not in run.metrics
    assert not (run.folder / "checkpoints").exists()
    test = Evaluation.read(run.folder / "test.npz")
    assert test.accuracy == pytest.approx(run.metrics["test_accuracy"])
    assert test.labels.tolist() == scan(drawn).labels_of(run.split.test).tolist()


def test_without_test_images_nothing_is_measured(averaged: TrainResult) -> None:
    assert averaged.test is None
    assert not [name for name in averaged.run.metrics if name.startswith("test_acc")]
    assert not (averaged.run.folder / "test.npz").exists()


def test_the_running_average_lags_behind_the_weights(unvalidated: TrainResult, averaged: TrainResult) -> None:
    name = "head.fc.weight"
    last, average = unvalidated.model.state_dict()[name], averaged.model.state_dict()[name]
    assert (average - last).abs().max() > 1e-4


@pytest.mark.nightly
def test_a_running_average_with_almost_no_decay_is_the_last_step(
    unvalidated: TrainResult, drawn: Path, tmp_path: Path
) -> None:
    overrides = ("trainer.max_epochs=3", "trainer.average_decay=1e-9")
    average = train_on(drawn, tmp_path / "run", *overrides, parts=unvalidated.run.split).model.state_dict()
    torch.testing.assert_close(average["head.fc.weight"], unvalidated.model.state_dict()["head.fc.weight"])


@pytest.mark.parametrize("decay", [pytest.param("null", marks=pytest.mark.nightly), "0.9"])
def test_the_best_epoch_is_kept(decay: str, drawn: Path, tmp_path: Path) -> None:
    """With a running average, its weights are validated, and its weights of the best epoch are kept."""
    steps = ("trainer.max_epochs=4", "trainer.precision=32-true")
    result = train_on(drawn, tmp_path / "run", f"trainer.average_decay={decay}", *steps)
    run, paths = result.run, result.run.split.validation
    labels = torch.from_numpy(scan(drawn).labels_of(paths))
    with torch.inference_mode():
        logits = run.load_model()(normalised(run, drawn, paths))
    losses = [epoch["validation/loss"] for epoch in result.history]
    assert len(set(losses)) == 4
    assert torch.nn.functional.cross_entropy(logits, labels).item() == pytest.approx(min(losses), rel=1e-4)


def test_a_teacher_gives_the_probabilities_of_its_run(result: TrainResult, drawn: Path) -> None:
    run = result.run
    images = torch.from_numpy(load_images(drawn, run.split.train, run.input_size, run.interpolation))
    probabilities = train_module._teacher(run.folder, run.split)(images.permute(0, 3, 1, 2).float())
    with torch.inference_mode():
        expected = run.load_model()(normalised(run, drawn, run.split.train)).softmax(dim=1)
    torch.testing.assert_close(probabilities, expected, rtol=0, atol=1e-4)


@pytest.mark.nightly
def test_a_student_learns_from_a_run(result: TrainResult, drawn: Path, tmp_path: Path) -> None:
    student = train_on(drawn, tmp_path / "run", f"teacher={result.run.folder}", "optimizer.mixup=0.4")
    assert student.history[-1]["train/loss"] != result.history[-1]["train/loss"]
    assert student.run.split == result.run.split


def test_a_teacher_that_was_trained_on_test_images_is_rejected(
    result: TrainResult, drawn: Path, tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match=r"was trained on \d+ of the validation and test images"):
        train_on(drawn, tmp_path / "run", "seed=1", f"teacher={result.run.folder}")


def test_the_same_seed_gives_the_same_result(result: TrainResult, drawn: Path, tmp_path: Path) -> None:
    again = train_on(drawn, tmp_path / "again")
    assert again.run.metrics == result.run.metrics
    assert again.run.temperature == result.run.temperature
    assert again.history == result.history
    for name, value in result.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name


def test_another_seed_gives_another_split(result: TrainResult, other_seed: TrainResult) -> None:
    assert other_seed.run.split != result.run.split


def test_one_override_logs_to_tensorboard(other_seed: TrainResult) -> None:
    assert list((other_seed.run.folder / "logs").glob("events.out.tfevents.*"))


def test_one_override_logs_to_wandb_offline(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    train_on(drawn, tmp_path / "run", "logger=wandb", "logger.offline=true", "debug=smoke", "input_size=32")
    assert list((tmp_path / "run").glob("wandb/offline-run-*/*.wandb"))


def test_a_finished_run_is_not_overwritten(result: TrainResult, drawn: Path) -> None:
    with pytest.raises(SettingError, match="already holds a finished run"):
        train_on(drawn, result.run.folder)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.mixup=-1", "optimizer.mixup is -1; it must be a number from 0 to 100"),
        ("augmentation.blur=much", "augmentation.blur is 'much'; it must be a number from 0 to 1"),
        ("+augmentation.fog=1", r"augmentation.fog is not a setting\. Valid settings: background, blur"),
    ],
)
def test_an_invalid_setting_is_reported_before_anything_is_written(
    override: str, message: str, drawn: Path, tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match=message):
        train_on(drawn, tmp_path / "run", override)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "launch",
    [
        [Path(sys.executable).with_name("vinegrape"), "train"],
        pytest.param(
            [Path(sys.executable).with_name("torchrun"), "--nproc-per-node=2", "-m", "vinegrape_training.fit.train"],
            marks=pytest.mark.nightly,
        ),
    ],
    ids=["lightning", "torchrun"],
)
def test_two_processes_train_one_model(drawn: Path, tmp_path: Path, launch: list[str | Path]) -> None:
    """The default run_dir holds a time. Both processes must use that of the first, although the second starts later."""
    small = ("model=small_cnn", "optimizer=adamw_scratch", "input_size=32", "trainer.accelerator=cpu")
    two = ("trainer.devices=2", "trainer.strategy=ddp", "data.batch_size=4", "debug=smoke")
    result = subprocess.run(
        [*launch, f"data.dir={drawn}", *two, *small], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("test accuracy") == 1
    (folder,) = (tmp_path / "runs").iterdir()
    run = Run.read(folder)
    assert (run.metrics["epochs"], run.load_model().training) == (1, False)
    checkpoint = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 2  # limit_train_batches: each process takes two of the four batches


def test_the_console_command_finds_its_configuration(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The console command imports `main`; Hydra must find the configuration without running the file as a module."""
    monkeypatch.setattr(sys, "argv", ["vinegrape train", "data.dir=nowhere", "run_dir=.", "--cfg", "job"])
    train_module.main()
    assert "architecture: mobilenetv2_100" in capsys.readouterr().out


def test_the_command_line_reports_an_error_as_one_line_with_exit_code_1(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "vinegrape_training.fit.train", f"data.dir={tmp_path / 'x'}", f"run_dir={tmp_path}/run"],
        capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "100"},
    )  # fmt: skip
    assert result.returncode == 1
    assert result.stderr.startswith(f"vinegrape train: {tmp_path / 'x'} is not a folder.")
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()
