"""`make model` trains what it has evaluated."""

import shlex
import subprocess

from tests.conftest import ROOT


def test_the_same_recipe_is_evaluated_and_trained_whatever_it_is_called() -> None:
    names = ["DATA=my leaves", "WEIGHTS=my weights.pth", "EVALUATION=runs/my own"]
    command = ["make", "-n", "model", *names, "RECIPE=input_size=224", "ARGS=--leaky"]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    steps = [shlex.split(line.removesuffix(" && \\")) for line in lines if "bin/vinegrape " in line]
    (evaluate,), (train,) = ([step for step in steps if name in step] for name in ("evaluate", "train"))
    recipe = ['data.dir="my leaves"', 'weights="my weights.pth"', "input_size=224"]
    assert evaluate[1:] == ["evaluate", "runs/my own", *recipe, "--leaky"]
    assert train[1:] == ["train", 'evaluation="runs/my own"', "run_dir=$run", *recipe]
