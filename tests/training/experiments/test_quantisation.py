from __future__ import annotations

import dataclasses
from pathlib import Path

from click.testing import CliRunner

from vinegrape_training.experiments.quantisation import SHARES, main
from vinegrape_training.fit.run import Run


def test_it_compares_each_file_with_the_float_one(run: Path) -> None:
    result = CliRunner().invoke(main, [str(run)])
    assert result.exit_code == 0, result.output
    title, _, _, everything, *quantised = result.stdout.splitlines()
    assert title == "10 images, small_cnn at 32 px"
    assert everything.startswith("| everything | 0 |")
    assert everything.endswith("| 0.0000 | 0.000 | 1.00 |")
    assert [row.split(" ")[1] for row in quantised] == [f"{share:.0%}" for share in SHARES]
    assert all(float(row.split(" | ")[3]) > 0 for row in quantised)


def test_a_folder_that_is_no_run_is_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, [str(tmp_path)])
    assert result.exit_code == 1
    assert result.stderr == f"Error: {tmp_path} has no run.json: it is not the folder of a finished training run.\n"


def test_a_run_without_test_images_cannot_say(run: Path, tmp_path: Path) -> None:
    whole = Run.read(run)
    dataclasses.replace(whole, folder=tmp_path, split=dataclasses.replace(whole.split, test=())).write()
    result = CliRunner().invoke(main, [str(tmp_path)])
    assert result.exit_code == 1
    assert "kept no image aside to test with" in result.stderr
