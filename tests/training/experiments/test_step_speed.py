from __future__ import annotations

from click.testing import CliRunner

from vinegrape_training.experiments.step_speed import main
from vinegrape_training.fit.trainer import precision


def test_it_prints_a_ratio_for_each_thing_that_makes_training_fast() -> None:
    result = CliRunner().invoke(main, ["--rounds", "1", "input_size=64", "data.batch_size=4"])
    assert result.exit_code == 0, result.output
    title, *rows, total = result.stdout.splitlines()
    assert title.startswith("4 images of 64 px on ")
    # where bfloat16 is only imitated, training does without it, and there is nothing to measure
    mixed = ["bfloat16"] if precision("auto") == "bf16-mixed" else []
    things = ["image at a time", "decoded once", "augmentation", "last", "memory", "filled", *mixed, "frozen"]
    assert [thing in row for row, thing in zip(rows, things, strict=True)] == [True] * len(things)
    assert "x 1.00" in rows[0]
    assert total.endswith("from the first to the last")


def test_a_wrong_setting_is_one_line() -> None:
    result = CliRunner().invoke(main, ["data.batch_size=none"])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: data.batch_size is 'none'; it must be a whole number")
