"""The comparison of evaluations, with the weights of the hand-made model."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import pytest
import torch

from tests.support import tiny_archive
from tests.support.runs import logits_of
from vinegrape_handler.errors import SettingError
from vinegrape_handler.weights import WEIGHTS_FILES
from vinegrape_training.evaluation.out_of_fold import OutOfFold
from vinegrape_training.evaluation.report import Report
from vinegrape_training.experiments.comparison import Candidate, compare, table

LABELS = torch.tensor([0, 0, 1, 1])
RECIPE = {"weights": "none", "input_size": tiny_archive.SIDE, "model": {"architecture": "mean_colour"}}


@pytest.fixture
def evaluation(tiny_export: Path, tmp_path: Path) -> Path:
    """An evaluation of four images: one is wrong, and two in int8. Its TorchScript file has 1 MB of random bytes."""
    logits, int8 = (logits_of(torch.tensor(predictions), 2)[None] for predictions in ([0, 0, 1, 0], [0, 1, 1, 0]))
    predictions = OutOfFold((1,), ("a", "b", "c", "d"), LABELS, torch.tensor([[0, 1, 0, 1]]), logits, int8)
    folder = tmp_path / "evaluation"
    weights = folder / "seed-1" / "fold-0" / "weights"
    weights.mkdir(parents=True)
    shutil.copy(tiny_export / WEIGHTS_FILES["onnx_int8"], weights)
    (weights / WEIGHTS_FILES["torchscript"]).write_bytes(os.urandom(1_000_000))
    Report.of(predictions, ("blue", "red"), "digest", RECIPE).write(folder)
    return folder


def test_two_evaluations_are_compared(evaluation: Path, tmp_path: Path) -> None:
    again = shutil.copytree(evaluation, tmp_path / "again")
    first, second = compare([evaluation, again], tmp_path / "comparison")
    assert (first.name, second.name) == ("evaluation", "again")
    assert first.relative_latency == 1.0
    assert (first.accuracy, first.int8_accuracy) == (0.75, 0.5)
    assert (first.architecture, first.pretrained, first.input_size) == ("mean_colour", False, 16)
    assert 1.0 < first.weights_mb < 1.01
    assert first.weights_mb == second.weights_mb
    assert (tmp_path / "comparison" / "comparison.md").read_text() == table([first, second]) + "\n"
    assert (tmp_path / "comparison" / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_shows_the_fastest_network_first() -> None:
    slow = Candidate("slow", "resnet50", True, 224, 0.9, (0.85, 0.95), 0.89, 20.0, 4.0, 25.0)
    fast = Candidate("fast", "small_cnn", False, 32, 0.8, (0.7, 0.9), 0.8, 5.0, 1.0, 1.2)
    assert table([slow, fast]).splitlines()[2:] == [
        "| `small_cnn` | none | 32 | 80.00% | 70.0% to 90.0% | 80.00% | 5.0 | 1.00 | 1.2 |",
        "| `resnet50` | ImageNet | 224 | 90.00% | 85.0% to 95.0% | 89.00% | 20.0 | 4.00 | 25.0 |",
    ]


def test_an_evaluation_without_int8_is_refused(evaluation: Path, tmp_path: Path) -> None:
    dataclasses.replace(Report.read(evaluation), int8=None).write(evaluation)
    with pytest.raises(SettingError, match=r"was evaluated without int8. Evaluate again with --int8"):
        compare([evaluation], tmp_path / "comparison")
