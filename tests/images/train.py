"""Dockerfile.train builds a working image. `make images` runs these tests; pytest alone does not collect them."""

import os
import re

import pytest

from tests.images import image

IMAGE = os.environ["TRAIN_IMAGE"]
SMALL = ("model=small_cnn", "optimizer=adamw_scratch", "input_size=64", "debug=smoke", "trainer.accelerator=cpu")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tmp_path_factory.mktemp("train")


@pytest.fixture(scope="module")
def options(folders) -> tuple[str, ...]:
    """Options that mount data/ and runs/; data/leaves contains drawn leaves."""
    options = image.mounts(folders, "data", "runs")
    result = image.run(IMAGE, "data", "draw", "data/leaves", "--images-per-class=8", "--side=64", options=options)
    assert result.returncode == 0, result.stderr
    return options


@pytest.mark.parametrize("processes", [1, 2])
def test_training_writes_its_run_to_the_mounted_folder(folders, options, processes):
    """With one or several processes, and with W&B configured by environment variables."""
    name = f"by_{processes}"
    devices = (f"trainer.devices={processes}", "trainer.strategy=" + ("ddp" if processes > 1 else "auto"))
    result = image.run(
        IMAGE, "train", "data.dir=data/leaves", f"run_dir=runs/{name}", "data.batch_size=4", "logger=wandb",
        *SMALL, *devices, options=(*options, *image.variables(WANDB_MODE="offline")),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    run = folders / "runs" / name
    written = {str(path.relative_to(run)) for path in run.rglob("*")}
    assert {"run.json", "config.yaml", "weights.safetensors", "checkpoints/best.ckpt"} <= written
    assert list(run.glob("wandb/offline-run-*/*.wandb"))


def test_the_image_contains_every_command():
    listed = set(re.findall(r"^  ([a-z]+) ", image.run(IMAGE, "--help").stdout, re.MULTILINE))
    assert {"serve", "ready", "data", "train", "evaluate", "export", "archive", "loadtest", "bench"} <= listed


def test_the_user_is_not_root():
    assert image.program(IMAGE, "id", "-u").stdout.strip() == "10001"
