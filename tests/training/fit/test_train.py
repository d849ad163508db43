from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.support.small_config import compose_config
from vinegrape_handler.errors import SettingError
from vinegrape_training.data.dataset import Split, folds, load_images, scan
from vinegrape_training.errors import DataError, RunError
from vinegrape_training.evaluation.predictions import Evaluation
from vinegrape_training.fit.lightning_module import ClassifierModule, warmup_cosine
from vinegrape_training.fit.run import Run
from vinegrape_training.fit.train import TrainResult, train
from vinegrape_training.fit.trainer import precision
from vinegrape_training.models.factory import create_model, preprocessing


def train_on(folder: Path, run: Path, *overrides: str) -> TrainResult:
    quiet = ("trainer.max_epochs=2", "data.batch_size=8")
    return train(compose_config(f"data.dir={folder}", f"run_dir={run}", *quiet, *overrides))


@pytest.fixture(scope="module")
def result(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """Two epochs on fifty synthetic leaves."""
    return train_on(drawn, tmp_path_factory.mktemp("runs") / "run")


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vinegrape_training.fit.train", *arguments],
        capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "100"},
    )  # fmt: skip


def test_learns_what_is_easy_to_tell(colours: Path, tmp_path: Path) -> None:
    result = train_on(colours, tmp_path / "run", "trainer.max_epochs=10", "data.batch_size=4", "augmentation=light")
    assert result.run.metrics["validation_accuracy"] == 1.0
    assert result.run.metrics["test_accuracy"] == 1.0


def test_run_folder_is_complete(result: TrainResult) -> None:
    names = {path.name for path in result.run.folder.iterdir()}
    assert names >= {"run.json", "config.yaml", "weights.safetensors", "curves.png", "confusion.png", "checkpoints"}
    assert (result.run.folder / "logs" / "metrics.csv").read_text().count("\n") > 2
    with Image.open(result.run.folder / "curves.png") as curves:
        curves.verify()


def test_run_says_what_it_is(result: TrainResult, drawn: Path) -> None:
    values = json.loads((result.run.folder / "run.json").read_text())
    assert values["architecture"] == "small_cnn"
    assert values["classes"] == list(scan(drawn).classes)
    assert values["data_digest"] == scan(drawn).digest()
    assert values["data_dir"] == str(drawn)
    assert {part: len(paths) for part, paths in values["split"].items()} == {"train": 30, "validation": 10, "test": 10}
    assert values["libraries"]["torch"] == torch.__version__.split("+")[0]
    assert values["metrics"]["epochs"] == 2
    assert "seed: 0" in (result.run.folder / "config.yaml").read_text()


def test_run_is_read_as_it_was_written(result: TrainResult) -> None:
    assert Run.read(result.run.folder) == result.run


def test_loaded_model_is_the_trained_one(result: TrainResult, drawn: Path) -> None:
    run = Run.read(result.run.folder)
    images = load_images(drawn, run.split.test, run.input_size, run.interpolation)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    x = (x - torch.tensor(run.mean).view(3, 1, 1)) / torch.tensor(run.std).view(3, 1, 1)
    with torch.inference_mode():
        logits = run.load_model()(x)
        torch.testing.assert_close(logits, result.model(x), rtol=0, atol=1e-4)
    right = logits.argmax(dim=1).numpy() == scan(drawn).labels_of(run.split.test)
    assert right.mean() == pytest.approx(run.metrics["test_accuracy"])


def test_frozen_stages_do_not_move_and_the_others_do(drawn: Path, tmp_path: Path) -> None:
    """Nor do their batch norms' statistics, though Lightning sets networks to training again and again."""
    overrides = ("model=mobilenetv2_100", "optimizer=adamw", "augmentation=light")
    frozen, other = (
        train_on(drawn, tmp_path / str(lr), *overrides, f"optimizer.backbone_lr={lr}").model.state_dict()
        for lr in (0.01, 0.0)
    )
    changed = {name for name, value in frozen.items() if not torch.equal(value, other[name])}
    assert not {name for name in changed if name.startswith(("conv_stem", "bn1", "blocks.0", "blocks.1", "blocks.2"))}
    assert {"blocks.3.0.conv_pw.weight", "blocks.3.0.bn1.running_mean", "conv_head.weight"} <= changed
    seen = other["bn1.num_batches_tracked"].item(), other["blocks.3.0.bn1.num_batches_tracked"].item()
    assert seen == (0, 6)


def test_without_validation_the_last_epoch_stays(drawn: Path, tmp_path: Path) -> None:
    dataset = scan(drawn)
    parts = folds(dataset, 0, 2)[0]
    cfg = compose_config(
        f"data.dir={drawn}", f"run_dir={tmp_path / 'run'}", "trainer.max_epochs=3", "trainer.patience=1"
    )
    result = train(cfg, parts)
    assert (len(result.history), result.run.temperature) == (3, 1.0)
    assert "validation_accuracy" not in result.run.metrics
    assert not (tmp_path / "run" / "checkpoints").exists()
    test = Evaluation.read(tmp_path / "run" / "test.npz")
    assert test.accuracy == pytest.approx(result.run.metrics["test_accuracy"])
    assert test.labels.tolist() == dataset.labels_of(parts.test).tolist()


def test_without_test_images_nothing_is_measured(drawn: Path, tmp_path: Path) -> None:
    cfg = compose_config(f"data.dir={drawn}", f"run_dir={tmp_path / 'run'}", "trainer.max_epochs=1")
    result = train(cfg, Split(scan(drawn).paths, (), ()))
    assert result.test is None
    assert not [name for name in result.run.metrics if name.startswith("test_acc")]
    assert not (tmp_path / "run" / "test.npz").exists()


def test_the_running_average_is_what_stays(result: TrainResult, drawn: Path, tmp_path: Path) -> None:
    """Where the average forgets everything at each step, it is the last step's weights; else it lags behind."""
    parts = folds(scan(drawn), 0, 2)[0]
    weights = {}
    for decay in ("null", "1e-9", "0.9"):
        steps = ("trainer.max_epochs=2", "data.batch_size=8", f"trainer.average_decay={decay}")
        cfg = compose_config(f"data.dir={drawn}", f"run_dir={tmp_path / decay}", *steps)
        weights[decay] = train(cfg, parts).model.state_dict()["head.fc.weight"]
    torch.testing.assert_close(weights["1e-9"], weights["null"])
    assert (weights["0.9"] - weights["null"]).abs().max() > 1e-4


def test_mixed_images(result: TrainResult, drawn: Path, tmp_path: Path) -> None:
    mixed = train_on(drawn, tmp_path / "run", "optimizer.mixup=0.4")
    assert mixed.history[-1]["train/loss"] != result.history[-1]["train/loss"]
    assert mixed.run.split == result.run.split


def test_a_teacher_is_half_of_the_loss() -> None:
    """Of a network that says nothing, whose logits are 0, each half is the log of the number of classes."""

    class Mute(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(images), 2)

    def loss(teacher: list[float], smoothing: float) -> float:
        wanted = preprocessing(create_model("small_cnn", 2, "none"))
        network = torch.nn.Sequential(Mute(), torch.nn.Linear(2, 2))
        torch.nn.init.zeros_(network[1].weight)
        network[1].bias.data = torch.tensor([1.0, 0.0])
        answers = torch.tensor([teacher]).float()
        classifier = ClassifierModule(network, 2, wanted, 0.1, 0.1, 0, 0, smoothing, teacher=lambda images: answers)
        classifier.log = lambda *args, **kwargs: None
        return classifier.training_step((torch.zeros(1, 3, 4, 4), torch.tensor([0])), 0).item()

    first, second = torch.tensor([1.0, 0.0]).log_softmax(dim=0).tolist()
    assert loss([1, 0], 0) == pytest.approx(-first)
    assert loss([0, 1], 0) == pytest.approx(-(first + second) / 2)
    assert loss([0.5, 0.5], 0) == pytest.approx(-(3 * first + second) / 4)


def test_a_student_learns_from_a_run(result: TrainResult, drawn: Path, tmp_path: Path) -> None:
    student = train_on(drawn, tmp_path / "run", f"teacher={result.run.folder}")
    assert student.history[-1]["train/loss"] != result.history[-1]["train/loss"]
    assert student.run.split == result.run.split


def test_a_teacher_must_not_know_what_is_to_be_measured(result: TrainResult, drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"was trained on \d+ of the images that are to measure"):
        train_on(drawn, tmp_path / "run", "seed=1", f"teacher={result.run.folder}")


def test_bfloat16_where_the_processor_has_it(result: TrainResult) -> None:
    here = torch.cpu.get_capabilities()
    native = bool(here.get("avx512_bf16") or here.get("amx_bf16"))
    assert precision("cpu") == ("bf16-mixed" if native else "32-true")
    assert {value.dtype for value in result.model.state_dict().values()} == {torch.float32, torch.int64}


@pytest.mark.parametrize("decay", ["null", "0.9"])
def test_best_epoch_is_kept(decay: str, drawn: Path, tmp_path: Path) -> None:
    """Its running average, where there is one: what was validated is what stays."""
    steps = ("trainer.max_epochs=4", "trainer.precision=32-true")
    result = train_on(drawn, tmp_path / "run", f"trainer.average_decay={decay}", *steps)
    run, dataset = result.run, scan(drawn)
    images = torch.from_numpy(load_images(drawn, run.split.validation, run.input_size, run.interpolation))
    pixels = images.permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (run.mean, run.std))
    labels = torch.from_numpy(dataset.labels_of(run.split.validation))
    with torch.inference_mode():
        loss = torch.nn.functional.cross_entropy(run.load_model()((pixels - mean) / std), labels).item()
    losses = [epoch["validation/loss"] for epoch in result.history]
    assert len(set(losses)) == 4
    assert loss == pytest.approx(min(losses), rel=1e-4)


def test_same_seed_same_result(result: TrainResult, drawn: Path, tmp_path: Path) -> None:
    again = train_on(drawn, tmp_path / "again")
    assert again.run.metrics == result.run.metrics
    assert again.run.temperature == result.run.temperature
    assert again.history == result.history
    for name, value in result.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name


def test_other_seed_other_split(result: TrainResult, drawn: Path, tmp_path: Path) -> None:
    other = train_on(drawn, tmp_path / "other", "seed=1", "debug=smoke", "input_size=32")
    assert other.run.split != result.run.split


def test_finished_run_is_not_overwritten(result: TrainResult, drawn: Path) -> None:
    with pytest.raises(SettingError, match="already holds a finished run"):
        train_on(drawn, result.run.folder)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("input_size=big", r"input_size must be a whole number from 16 to 4096; it is 'big'\."),
        ("input_size=64.5", "input_size must be a whole number"),
        ("seed=true", "seed must be a whole number"),
        ("data.batch_size=0", "data.batch_size must be a whole number from 1 to 65536; it is 0"),
        ("trainer.max_epochs=null", "trainer.max_epochs must be a whole number from 1 to 100000; it is None"),
        ("trainer.average_decay=2", "trainer.average_decay must be a number from 0 to 1; it is 2"),
        ("optimizer.mixup=-1", "optimizer.mixup must be a number from 0 to 100; it is -1"),
        ("augmentation.blur=much", "augmentation.blur must be a number"),
    ],
)
def test_a_number_that_cannot_be_is_refused_before_anything_is_written(
    override: str, message: str, drawn: Path, tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match=message):
        train_on(drawn, tmp_path / "run", override)
    assert not (tmp_path / "run").exists()


def test_tensorboard_by_one_option(drawn: Path, tmp_path: Path) -> None:
    train_on(drawn, tmp_path / "run", "logger=tensorboard", "debug=smoke", "input_size=32")
    assert list((tmp_path / "run" / "logs").glob("events.out.tfevents.*"))


def test_wandb_offline_by_one_option(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    train_on(drawn, tmp_path / "run", "logger=wandb", "logger.offline=true", "debug=smoke", "input_size=32")
    assert list((tmp_path / "run").glob("wandb/offline-run-*/*.wandb"))


def test_head_learns_at_its_own_rate() -> None:
    model = create_model("mobilenetv2_100", 5, "none")
    classifier = ClassifierModule(model, 5, preprocessing(model), 0.001, 0.01, 0.0, 0, 0.0)
    classifier.trainer = type("Trainer", (), {"estimated_stepping_batches": 10, "max_epochs": 1})()
    backbone, head = classifier.configure_optimizers()["optimizer"].param_groups
    assert (backbone["lr"], head["lr"]) == (0.001, 0.01)
    assert {id(parameter) for parameter in head["params"]} == {id(model.classifier.weight), id(model.classifier.bias)}
    assert len(backbone["params"]) + len(head["params"]) == len(list(model.parameters()))


def test_schedule_rises_then_falls() -> None:
    factors = [warmup_cosine(step, 4, 12) for step in range(13)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[8] == pytest.approx(0.5)
    assert factors[12] == pytest.approx(0.0)


def test_network_sees_what_timm_wants() -> None:
    model = torch.nn.Identity()
    base = create_model("mobilenetv2_100", 5, "none")
    classifier = ClassifierModule(model, 5, preprocessing(base), 0.1, 0.1, 0.0, 0, 0.0)
    white = classifier(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)).flatten().tolist()
    assert white == pytest.approx([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225], rel=1e-5)


def test_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"has no run\.json"):
        Run.read(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(RunError, match="not a run that this version"):
        Run.read(tmp_path)


@pytest.mark.parametrize(
    "launch",
    [
        [Path(sys.executable).with_name("vinegrape"), "train"],
        [Path(sys.executable).with_name("torchrun"), "--nproc-per-node=2", "-m", "vinegrape_training.fit.train"],
    ],
    ids=["lightning", "torchrun"],
)
def test_two_processes_train_one_model(drawn: Path, tmp_path: Path, launch: list[str | Path]) -> None:
    """In a folder of the first process's time: the second starts later."""
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
    assert checkpoint["global_step"] == 2  # limit_train_batches: each process took two of the four batches


def test_missing_data_dir_is_one_line() -> None:
    with pytest.raises(DataError, match=r"give data\.dir=FOLDER"):
        train(compose_config())


def test_console_command_finds_its_configuration() -> None:
    # as the console command calls it: imported, not run as a module
    call = "import sys; sys.argv = ['vinegrape train', 'data.dir=nowhere', 'run_dir=.', '--cfg', 'job']"
    result = subprocess.run(
        [sys.executable, "-c", f"{call}; from vinegrape_training.fit.train import main; main()"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "architecture: mobilenetv2_100" in result.stdout


def test_command_line_says_one_line_and_exits_1(tmp_path: Path) -> None:
    result = command(f"data.dir={tmp_path / 'nowhere'}", f"run_dir={tmp_path / 'run'}")
    assert result.returncode == 1
    assert result.stderr.strip().endswith("Give one that holds a folder of images for each class.")
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run" / "run.json").exists()
