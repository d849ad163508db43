"""`vinegrape robustness` with the hand-made model, whose probabilities can be worked out on paper."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import numpy_helper
from PIL import Image

from tests.support import tiny_archive
from tests.support.runs import logits_of, write_run
from tests.support.tiny_archive import BLACK, BLUE, GREEN, RED
from vinegrape_cli.main import vinegrape
from vinegrape_handler.errors import SettingError
from vinegrape_handler.weights import WEIGHTS_FILES
from vinegrape_training.data.dataset import Dataset, folds, scan
from vinegrape_training.evaluation.out_of_fold import OUT_OF_FOLD_FILE, OutOfFold
from vinegrape_training.evaluation.report import Report
from vinegrape_training.evaluation.robustness import Robustness, conditions
from vinegrape_training.experiments.robustness import measure_archive, measure_evaluation

ALL = {condition.label: condition for condition in conditions()}
CLEAN, DARK = ALL["clean"], ALL["dark 0.6"]
COLOURS = dict(zip(tiny_archive.CLASSES, (RED, GREEN, BLUE, BLACK, BLACK), strict=True))  # black is taken for Dimnit


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """Two images of each class. Those of Nazli are misclassified, and those of Buzgulu are blue: not known."""
    for name, colour in COLOURS.items():
        (tmp_path / "colours" / name).mkdir(parents=True)
        for number in (1, 2):
            Image.new("RGB", (16, 16), colour).save(tmp_path / "colours" / name / f"{number}.png")
    return tmp_path / "colours"


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Images of two kinds: blue ones, and a red one."""
    for kind, colour in (("blue", BLUE), ("red", RED)):
        (tmp_path / "foreign" / kind).mkdir(parents=True)
        Image.new("RGB", (16, 16), colour).save(tmp_path / "foreign" / kind / "1.png")
    return tmp_path / "foreign"


@pytest.fixture
def evaluation(colours: Path, tiny_export: Path, tmp_path: Path) -> Path:
    """An evaluation of one seed and two folds. The network of the second fold calls every image Nazli."""
    folder, dataset = tmp_path / "evaluation", scan(colours)
    for number, parts in enumerate(folds(dataset, 1, 2)):
        weights = folder / "seed-1" / f"fold-{number}" / "weights"
        weights.mkdir(parents=True)
        run = write_run(weights.parent, dataset, parts, 1)
        dataclasses.replace(run, input_size=tiny_archive.SIDE).write()
        shutil.copy(tiny_export / WEIGHTS_FILES["onnx_int8"], weights)
        if number == 1:
            _always_nazli(weights / WEIGHTS_FILES["onnx_int8"])
    predictions = _predictions(dataset)
    predictions.write(folder / OUT_OF_FOLD_FILE)
    Report.of(predictions, dataset.classes, dataset.digest(), {}).write(folder)
    return folder


def _always_nazli(path: Path) -> None:
    model = onnx.load(path)
    for initializer in model.graph.initializer:
        if initializer.name == "bias":
            initializer.CopyFrom(numpy_helper.from_array(np.array([0, 0, 0, 0, 99], np.float32), "bias"))
    onnx.save(model, path)


def _predictions(dataset: Dataset) -> OutOfFold:
    """Correct predictions of clean images."""
    fold_numbers = torch.zeros(1, len(dataset.paths), dtype=torch.int64)
    fold_numbers[0, dataset.indices_of(folds(dataset, 1, 2)[1].test)] = 1
    labels = torch.tensor(dataset.labels)
    logits = logits_of(labels, 5)[None]
    return OutOfFold((1,), dataset.paths, labels, fold_numbers, logits, logits)


def test_an_archive_is_measured_with_its_own_threshold(abstaining_archive: Path, colours: Path, foreign: Path) -> None:
    result = measure_archive(abstaining_archive, colours, [CLEAN, DARK], foreign_dir=foreign)
    assert (result.source, result.model, result.seeds) == ("archive", "tiny", 1)
    assert (result.score, result.threshold) == ("ood_score", tiny_archive.OOD_THRESHOLD)
    clean, dark = result.rows
    assert (clean.images, clean.accuracy, clean.known, clean.accuracy_of_known) == (10, 0.8, 0.8, 0.75)
    # the blue images have a score of 0.6 x 1 then, which is above the threshold of 0.5, too
    assert (dark.accuracy, dark.known) == (0.8, 0.8)
    assert result.foreign is not None
    blue, red = result.foreign["blue"], result.foreign["red"]
    assert (blue.images, blue.passed, blue.auroc) == (1, 0.0, 0.9)  # above 8 of 10 leaves, and equal to 2
    assert (red.images, red.passed, red.auroc) == (1, 1.0, 0.4)  # equal to 8 of 10 leaves, and below 2


def test_a_threshold_can_be_given(abstaining_archive: Path, colours: Path) -> None:
    (clean,) = measure_archive(abstaining_archive, colours, [CLEAN], threshold=1.0).rows
    assert clean.known == 1.0


def test_an_archive_that_cannot_abstain_is_measured_by_its_probabilities(tiny_archive: Path, colours: Path) -> None:
    result = measure_archive(tiny_archive, colours, [CLEAN])
    assert result.score == "one minus the probability"
    assert result.threshold == pytest.approx(0.4)  # black: 1 - 0.6 is the largest score, and 98 % is all of ten images
    assert result.rows[0].known == 1.0


def test_other_classes_than_those_of_the_archive_are_refused(tiny_archive: Path, colours: Path) -> None:
    shutil.rmtree(colours / "Nazli")
    with pytest.raises(SettingError, match="has the folders Ak, Ala_Idris, Buzgulu, Dimnit, but the classes"):
        measure_archive(tiny_archive, colours, [CLEAN])


def test_a_folder_without_foreign_images_is_refused(tiny_archive: Path, colours: Path, tmp_path: Path) -> None:
    (tmp_path / "empty" / "kind").mkdir(parents=True)
    with pytest.raises(SettingError, match="holds no images"):
        measure_archive(tiny_archive, colours, [CLEAN], foreign_dir=tmp_path / "empty")


def test_each_image_is_classified_by_the_network_of_its_fold(evaluation: Path, colours: Path) -> None:
    result = measure_evaluation(evaluation, colours, [CLEAN, DARK])
    assert (result.source, result.model, result.seeds) == ("evaluation", "", 1)
    clean, dark = result.rows
    # of the five images per fold the first network is wrong about Nazli, and the second about all others
    assert clean.images == dark.images == 10
    assert clean.accuracy == dark.accuracy == 0.5


def test_the_threshold_of_a_fold_comes_from_the_other_fold(evaluation: Path, colours: Path) -> None:
    result = measure_evaluation(evaluation, colours, [CLEAN])
    # The second network is more certain than the first. So the second threshold, that of the first network's scores,
    # lets all of its images pass, and the first threshold lets none of the first network's pass.
    assert result.rows[0].known == 0.5
    assert measure_evaluation(evaluation, colours, [CLEAN], threshold=1.0).rows[0].known == 1.0


def test_an_evaluation_of_other_images_is_refused(evaluation: Path, colours: Path) -> None:
    (colours / "Ak" / "2.png").unlink()
    with pytest.raises(SettingError, match="is an evaluation of other images"):
        measure_evaluation(evaluation, colours, [CLEAN])


def test_an_evaluation_without_int8_files_is_refused(evaluation: Path, colours: Path) -> None:
    (evaluation / "seed-1" / "fold-1" / "weights" / WEIGHTS_FILES["onnx_int8"]).unlink()
    with pytest.raises(SettingError, match=r"fold-1.weights has no int8 file. Run the same `vinegrape evaluate`"):
        measure_evaluation(evaluation, colours, [CLEAN])


def test_the_command_prints_a_table_and_writes_its_files(
    abstaining_archive: Path, colours: Path, foreign: Path, tmp_path: Path
) -> None:
    inputs = ["robustness", colours, "--archive", abstaining_archive, "--foreign", foreign]
    arguments = [*inputs, "--output", tmp_path / "out"]
    result = CliRunner().invoke(vinegrape, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0
    assert ["*", "clean", "80.0%", "80.0%", "75.0%"] in [line.split()[:5] for line in result.stdout.splitlines()]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "robustness.json",
        "robustness_map.png",
        "robustness_curves.png",
    }
    written = Robustness.read(tmp_path / "out" / "robustness.json")
    assert [row.corruption for row in written.rows[:3]] == ["clean", "dark", "dark"]
    # these images have no transparent background that could be replaced
    assert not any(row.corruption.endswith("_background") for row in written.rows)


def test_the_command_writes_to_the_folder_of_the_evaluation(evaluation: Path, colours: Path) -> None:
    arguments = ["robustness", str(colours), "--evaluation", str(evaluation), "--required"]
    result = CliRunner().invoke(vinegrape, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    values = json.loads((evaluation / "robustness.json").read_text())
    assert all(row["required"] for row in values["rows"])


def test_the_command_refuses_foreign_images_with_an_evaluation(colours: Path) -> None:
    arguments = ["robustness", str(colours), "--evaluation", "runs/evaluation", "--foreign", "foreign"]
    result = CliRunner().invoke(vinegrape, arguments)
    assert result.exit_code == 2
    assert "--foreign cannot be combined with --evaluation" in result.output
