from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.runs import logits_of
from tests.support.small_config import compose_config
from vinegrape_handler.errors import SettingError
from vinegrape_training.data.dataset import scan
from vinegrape_training.evaluation.out_of_fold import OutOfFold
from vinegrape_training.evaluation.report import Report
from vinegrape_training.fit.recipe import check_evaluated, differences, recipe


def logits(*classes: int) -> torch.Tensor:
    """Logits that predict these classes, of two, with a probability of 0.982: [N, 2]."""
    return logits_of(torch.tensor(classes), 2)


@pytest.fixture
def predictions(colours: Path) -> OutOfFold:
    """Predictions on ten blue (0) and ten red (1) images.

    One blue image is wrong with seed 7, none with seed 8. The int8 files have two and one wrong images.
    """
    labels = [0] * 10 + [1] * 10
    return OutOfFold(
        seeds=(7, 8),
        paths=scan(colours).paths,
        labels=torch.tensor(labels),
        folds=torch.tensor([[0, 1] * 10, [1, 0] * 10]),
        logits=torch.stack([logits(1, *labels[1:]), logits(*labels)]),
        int8=torch.stack([logits(1, *labels[1:19], 0), logits(*labels[:19], 0)]),
    )


@pytest.fixture
def report(predictions: OutOfFold, colours: Path) -> Report:
    return Report.of(
        predictions, ("blue", "red"), scan(colours).digest(), recipe(compose_config(f"data.dir={colours}"))
    )


def test_figures_by_hand(report: Report) -> None:
    assert report.accuracy == pytest.approx(39 / 40)
    assert report.accuracy_by_seed == {"7": pytest.approx(0.95), "8": 1.0}
    assert report.recall == {"blue": pytest.approx(0.95), "red": 1.0}
    assert report.confusion == [[19, 1], [0, 20]]
    assert (report.images, report.seeds, report.folds) == (20, (7, 8), 2)
    # the interval of 19.5 of 20 images; that of 39 of 40 would be narrower
    assert report.accuracy_95 == pytest.approx((0.7995, 0.9974), abs=1e-4)


def test_the_image_with_most_wrong_predictions_is_listed_first(predictions: OutOfFold, report: Report) -> None:
    first, last = predictions.paths[0], predictions.paths[-1]
    assert report.wrong == {first: ["red"]}
    assert f"{first}, predicted as red" in report.table()
    assert predictions.int8 is not None
    worse = Report.of(dataclasses.replace(predictions, logits=predictions.int8), ("blue", "red"), "", {})
    assert list(worse.wrong.items()) == [(last, ["blue", "blue"]), (first, ["red"])]


def test_the_table_lists_ten_wrong_images(predictions: OutOfFold) -> None:
    all_wrong = Report.of(dataclasses.replace(predictions, logits=-predictions.logits), ("blue", "red"), "", {})
    assert len(all_wrong.wrong) == 20
    assert all_wrong.table().endswith("and 10 more images, listed in evaluation.json")


def test_calibration_error_before_is_without_temperature(report: Report) -> None:
    # every confidence is 1 / (1 + e^-4) = 0.982; 0.975 of the predictions are correct
    assert report.calibration_error_before == pytest.approx(1 / (1 + np.exp(-4)) - 0.975, abs=1e-6)


def test_additional_wrong_images_of_int8_are_counted_per_seed(report: Report) -> None:
    assert report.int8 is not None
    assert report.int8["more_wrong"] == {"7": 1, "8": 1}
    assert report.int8["accuracy"] == pytest.approx(37 / 40)


def test_a_fold_is_not_measured_with_a_temperature_that_was_fitted_on_it(predictions: OutOfFold) -> None:
    before = predictions.probabilities(predictions.logits)
    # another prediction in fold 0 of seed 7 changes the temperature of fold 1 only
    changed = predictions.logits.clone()
    changed[0, 2] = logits(1)[0]
    after = OutOfFold(
        predictions.seeds, predictions.paths, predictions.labels, predictions.folds, changed, None
    ).probabilities(predictions.logits)
    np.testing.assert_array_equal(after[0, predictions.folds[0] == 0], before[0, predictions.folds[0] == 0])
    assert (after[0, predictions.folds[0] == 1] != before[0, predictions.folds[0] == 1]).all()
    np.testing.assert_array_equal(after[1], before[1])


def test_a_written_report_and_predictions_read_back_equal(
    predictions: OutOfFold, report: Report, tmp_path: Path
) -> None:
    report.write(tmp_path)
    assert Report.read(tmp_path) == report
    predictions.write(tmp_path / "predictions.npz")
    again = OutOfFold.read(tmp_path / "predictions.npz")
    assert (again.seeds, again.paths) == (predictions.seeds, predictions.paths)
    for name in ("labels", "folds", "logits", "int8"):
        torch.testing.assert_close(getattr(again, name), getattr(predictions, name), rtol=0, atol=0)


def test_a_folder_without_a_readable_report_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"holds no evaluation.json. To create it, run: vinegrape evaluate"):
        Report.read(tmp_path)
    (tmp_path / "evaluation.json").write_text("{}")
    with pytest.raises(SettingError, match="does not have the fields that this version of vinegrape reads"):
        Report.read(tmp_path)


def test_a_recipe_contains_no_paths(colours: Path) -> None:
    values = recipe(compose_config(f"data.dir={colours}", "weights=/somewhere/weights.pth", "run_dir=/elsewhere"))
    assert values["weights"] == "weights.pth"
    assert values["data"] == {"batch_size": 16}
    assert "somewhere" not in str(values)
    assert "elsewhere" not in str(values)


@pytest.mark.parametrize("override", ["seed=5", "trainer.accelerator=auto", "trainer.precision=32-true"])
def test_seed_and_hardware_are_not_part_of_the_recipe(report: Report, colours: Path, override: str) -> None:
    check_evaluated(report, compose_config(f"data.dir={colours}", override), scan(colours))


def test_another_recipe_is_refused_with_its_differences(report: Report, colours: Path) -> None:
    other = compose_config(f"data.dir={colours}", "optimizer.mixup=0.2", "input_size=64")
    with pytest.raises(SettingError, match=r"input_size.*32.*64.*optimizer.mixup.*0.0.*0.2"):
        check_evaluated(report, other, scan(colours))


def test_other_images_are_refused(report: Report, colours: Path) -> None:
    (colours / "red" / "00.png").unlink()
    with pytest.raises(SettingError, match="images"):
        check_evaluated(report, compose_config(f"data.dir={colours}"), scan(colours))


def test_an_evaluation_without_int8_is_refused(predictions: OutOfFold, colours: Path) -> None:
    plain = OutOfFold(
        predictions.seeds, predictions.paths, predictions.labels, predictions.folds, predictions.logits, None
    )
    report = Report.of(plain, ("blue", "red"), scan(colours).digest(), recipe(compose_config(f"data.dir={colours}")))
    with pytest.raises(SettingError, match="--int8"):
        check_evaluated(report, compose_config(f"data.dir={colours}"), scan(colours))


def test_differences_of_two_recipes() -> None:
    assert differences({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 2}}) == []
    assert differences({"b": {"c": 2}}, {"b": {"c": 2, "d": 3}}) == ["b.d is None, now 3"]
