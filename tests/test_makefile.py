"""Targets of the Makefile run the right commands. `make -n` prints them without running them."""

import shlex
import subprocess

import pytest

from tests.support.pages import ROOT


def dry_run(*arguments: str) -> list[list[str]]:
    """The words of each `vinegrape` command that make would run."""
    printed = subprocess.run(["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = (line.removesuffix(" && \\") for line in printed.splitlines() if line.startswith(".venv/bin/vinegrape "))
    return [shlex.split(line)[1:] for line in lines]


def test_model_trains_with_the_recipe_that_it_evaluates() -> None:
    """Also with names that contain spaces."""
    names = ["DATA=my leaves", "WEIGHTS=my weights.pth", "EVALUATION=runs/my evaluation", "OUTLIERS=other things"]
    evaluate, robustness, train, export, archive = dry_run("model", *names, "RECIPE=input_size=224", "ARGS=--folds 4")
    recipe = ['data.dir="my leaves"', 'weights="my weights.pth"', 'outliers.dir="other things"', "input_size=224"]
    assert evaluate == ["evaluate", "runs/my evaluation", *recipe, "--folds", "4"]
    assert robustness == ["robustness", "my leaves", "--evaluation", "runs/my evaluation"]
    assert train == ["train", 'evaluation="runs/my evaluation"', "run_dir=$run", *recipe]
    assert export == ["export", "$run", "$run/export"]
    assert archive == ["archive", "$run/export", "model_store/vinegrape.mar"]


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["loadtest"], ["loadtest"]),
        (["loadtest", "HOST=http://127.0.0.1:8080"], ["loadtest", "--host", "http://127.0.0.1:8080"]),
        (["fuzz", "ARGS=--images 10 --seed 7"], ["fuzz", "--images", "10", "--seed", "7"]),
        (["bench", "ARGS=/tmp/bench --rounds 1"], ["bench", "serving", "/tmp/bench", "--rounds", "1"]),
    ],
)
def test_measurements_are_vinegrape_commands(arguments: list[str], command: list[str]) -> None:
    assert dry_run(*arguments) == [command]
