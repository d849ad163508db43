"""Trains with the image of Dockerfile.train; `make images` builds it and runs this, pytest by itself does not."""

import os

import pytest

from tests.images import image

IMAGE = os.environ["TRAIN_IMAGE"]
SMALL = ("model=small_cnn", "optimizer=adamw_scratch", "input_size=64", "debug=smoke", "trainer.accelerator=cpu")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tmp_path_factory.mktemp("train")


@pytest.fixture(scope="module")
def options(folders) -> tuple[str, ...]:
    """Mounts, with drawn leaves in data/leaves."""
    options = image.mounts(folders, "data", "runs")
    drawn = image.run(IMAGE, "data", "draw", "data/leaves", "--images-per-class=8", "--side=64", options=options)
    assert drawn.returncode == 0, drawn.stderr
    return options


@pytest.mark.parametrize("processes", [1, 2])
def test_a_training_leaves_its_run_on_the_mount(folders, options, processes):
    """By several processes too, and with W&B as the environment says."""
    name = f"by_{processes}"
    several = (f"trainer.devices={processes}", "trainer.strategy=" + ("ddp" if processes > 1 else "auto"))
    result = image.run(
        IMAGE, "train", "data.dir=data/leaves", f"run_dir=runs/{name}", "data.batch_size=4", "logger=wandb",
        *SMALL, *several, options=(*options, *image.variables(WANDB_MODE="offline")),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    run = folders / "runs" / name
    written = {str(path.relative_to(run)) for path in run.rglob("*")}
    assert {"run.json", "config.yaml", "weights.safetensors", "checkpoints/best.ckpt"} <= written
    assert list(run.glob("wandb/offline-run-*/*.wandb"))


def test_nobody_is_root():
    assert image.program(IMAGE, "id", "-u").stdout.strip() == "10001"
