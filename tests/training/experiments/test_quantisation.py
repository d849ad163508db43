"""The measurement of int8: its figures by hand, and one network that is really quantised."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.runs import write_run
from vinegrape_handler.networks import Outputs
from vinegrape_training.data.dataset import Split, scan
from vinegrape_training.errors import RunError
from vinegrape_training.experiments.quantisation import Int8Comparison, Int8Row, compare_with_float, measure_int8


def test_figures_by_hand() -> None:
    reference = Outputs(np.array([[0.75, 0.25], [0.5, 0.5], [0.25, 0.75]], np.float32), np.array([1, 2, 3], np.float32))
    int8 = Outputs(np.array([[0.25, 0.75], [0.5, 0.5], [0.25, 0.75]], np.float32), np.array([1, 2, 4.5], np.float32))
    row = compare_with_float("int8", int8, reference, np.array([0, 1, 1]), np.array([0.5, 0.25, 0.75]))
    # the first image changes; the first and the second are wrong
    assert row == Int8Row("int8", 1, 2, pytest.approx(1 / 6), 0.5, 0.5, 0.5)


def test_the_table_shows_one_row_per_file() -> None:
    rows = (Int8Row("float32", 0, 3, 0.0, 0.0, None, 1.0), Int8Row("int8", 2, 4, 0.0125, 0.3, 0.25, 0.5))
    title, _, _, *lines = Int8Comparison(10, "small_cnn", 32, rows).table().splitlines()
    assert title == "10 images, small_cnn at 32 px"
    assert lines == [
        "| float32 | 0 | 3 | 0.0000 | 0.000 |  | 1.00 |",
        "| int8 | 2 | 4 | 0.0125 | 0.300 | 0.25 | 0.50 |",
    ]


def test_each_file_is_compared_with_the_float_file(run: Path) -> None:
    result = measure_int8(run)
    float32, uncorrected, corrected = result.rows
    assert (result.images, result.architecture, result.input_size) == (10, "small_cnn", 32)
    assert (float32.changed, float32.largest_difference, float32.relative_time) == (0, 0.0, 1.0)
    assert [row.name for row in result.rows] == ["float32", "int8 without corrected biases", "int8"]
    assert 0 < corrected.mean_difference < corrected.largest_difference
    assert uncorrected.mean_difference != corrected.mean_difference


def test_a_folder_without_a_run_is_reported(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"run.json"):
        measure_int8(tmp_path)


def test_a_run_without_test_images_is_refused(colours: Path, tmp_path: Path) -> None:
    dataset = scan(colours)
    write_run(tmp_path, dataset, Split(dataset.paths, (), ()))
    with pytest.raises(RunError, match=r"has no test images. Pass a fold of an evaluation"):
        measure_int8(tmp_path)
