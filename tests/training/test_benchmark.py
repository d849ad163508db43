from __future__ import annotations

from click.testing import CliRunner
from vinegrape_training.benchmark import main


def test_it_prints_a_ratio_for_each_thing_that_makes_training_fast() -> None:
    result = CliRunner().invoke(main, ["--rounds", "1", "input_size=64", "data.batch_size=4"])
    assert result.exit_code == 0, result.output
    title, *rows = result.stdout.splitlines()
    assert title.startswith("4 images of 64 px on ")
    things = ("image at a time", "augmentation", "bfloat16", "frozen")
    assert [thing in row for row, thing in zip(rows, things, strict=True)] == [True] * 4
    assert "x 1.00" in rows[0]
