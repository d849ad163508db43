from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.small_config import compose_config
from vinegrape_handler.errors import SettingError
from vinegrape_training.data.dataset import scan
from vinegrape_training.evaluation.out_of_fold import OutOfFold
from vinegrape_training.evaluation.report import Report
from vinegrape_training.fit.recipe import check_evaluated, differences, recipe


def logits(*answers: int) -> torch.Tensor:
    """A sure answer an image, of two classes: [N, 2]."""
    return 4.0 * torch.nn.functional.one_hot(torch.tensor(answers), 2).float()


@pytest.fixture
def made(colours: Path) -> OutOfFold:
    """Twenty images, ten blue (0) and ten red (1). Seed 7 gets one blue wrong; seed 8 none. Int8 gets 2 and 1 wrong."""
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
def report(made: OutOfFold, colours: Path) -> Report:
    return Report.of(made, ("blue", "red"), scan(colours).digest(), recipe(compose_config(f"data.dir={colours}")))


def test_figures_by_hand(report: Report) -> None:
    assert report.accuracy == pytest.approx(39 / 40)
    assert report.accuracy_by_seed == {"7": pytest.approx(0.95), "8": 1.0}
    assert report.recall == {"blue": pytest.approx(0.95), "red": 1.0}
    assert report.confusion == [[19, 1], [0, 20]]
    assert (report.images, report.seeds, report.folds) == (20, (7, 8), 2)
    # of 19.5 of 20 images: that of 39 of 40 would be narrower
    assert report.accuracy_95 == pytest.approx((0.7995, 0.9974), abs=1e-4)


def test_wrong_images_are_named_the_wrongest_first(made: OutOfFold, report: Report) -> None:
    first, last = made.paths[0], made.paths[-1]
    assert report.wrong == {first: ["red"]}
    assert f"{first}, taken for red" in report.table()
    assert made.int8 is not None
    worse = Report.of(dataclasses.replace(made, logits=made.int8), ("blue", "red"), "", {})
    assert list(worse.wrong.items()) == [(last, ["blue", "blue"]), (first, ["red"])]


def test_a_long_list_of_wrong_images_is_cut(made: OutOfFold) -> None:
    nothing = Report.of(dataclasses.replace(made, logits=-made.logits), ("blue", "red"), "", {})
    assert len(nothing.wrong) == 20
    assert nothing.table().endswith("and 10 more images, in evaluation.json")


def test_calibration_error_before_is_of_the_logits_as_they_are(report: Report) -> None:
    # every answer says 1 / (1 + e^-4) = 0.982; 0.975 of them are right
    assert report.calibration_error_before == pytest.approx(1 / (1 + np.exp(-4)) - 0.975, abs=1e-6)


def test_int8_is_counted_by_seed(report: Report) -> None:
    assert report.int8 is not None
    assert report.int8["more_wrong"] == {"7": 1, "8": 1}
    assert report.int8["accuracy"] == pytest.approx(37 / 40)


def test_a_temperature_never_comes_from_the_images_that_it_is_measured_on(made: OutOfFold) -> None:
    before = made.probabilities(made.logits)
    # other answers in seed 7's fold 0 leave its own temperature alone, and change that of its fold 1
    changed = made.logits.clone()
    changed[0, 2] = logits(1)[0]
    after = OutOfFold(made.seeds, made.paths, made.labels, made.folds, changed, None).probabilities(made.logits)
    np.testing.assert_array_equal(after[0, made.folds[0] == 0], before[0, made.folds[0] == 0])
    assert (after[0, made.folds[0] == 1] != before[0, made.folds[0] == 1]).all()
    np.testing.assert_array_equal(after[1], before[1])


def test_both_files_can_be_read_again(made: OutOfFold, report: Report, tmp_path: Path) -> None:
    report.write(tmp_path)
    assert Report.read(tmp_path) == report
    made.write(tmp_path / "answers.npz")
    again = OutOfFold.read(tmp_path / "answers.npz")
    assert (again.seeds, again.paths) == (made.seeds, made.paths)
    for name in ("labels", "folds", "logits", "int8"):
        torch.testing.assert_close(getattr(again, name), getattr(made, name), rtol=0, atol=0)


def test_a_folder_without_a_report_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"holds no evaluation.json; make it: vinegrape evaluate"):
        Report.read(tmp_path)
    (tmp_path / "evaluation.json").write_text("{}")
    with pytest.raises(SettingError, match="is not what this version of vinegrape writes"):
        Report.read(tmp_path)


def test_a_recipe_names_no_place(colours: Path) -> None:
    values = recipe(compose_config(f"data.dir={colours}", "weights=/somewhere/weights.pth", "run_dir=/elsewhere"))
    assert values["weights"] == "weights.pth"
    assert values["data"] == {"batch_size": 16}
    assert "somewhere" not in str(values)
    assert "elsewhere" not in str(values)


@pytest.mark.parametrize("override", ["seed=5", "trainer.accelerator=auto", "trainer.precision=32-true"])
def test_what_only_says_where_and_how_fast_is_not_of_the_recipe(report: Report, colours: Path, override: str) -> None:
    check_evaluated(report, compose_config(f"data.dir={colours}", override), scan(colours))


def test_another_recipe_is_named(report: Report, colours: Path) -> None:
    other = compose_config(f"data.dir={colours}", "optimizer.mixup=0.2", "input_size=64")
    with pytest.raises(SettingError, match=r"input_size is 32, now 64; optimizer.mixup is 0.0, now 0.2"):
        check_evaluated(report, other, scan(colours))


def test_other_images_are_refused(report: Report, colours: Path) -> None:
    (colours / "red" / "00.png").unlink()
    with pytest.raises(SettingError, match="measured other images"):
        check_evaluated(report, compose_config(f"data.dir={colours}"), scan(colours))


def test_without_int8_nothing_can_be_shipped(made: OutOfFold, colours: Path) -> None:
    plain = OutOfFold(made.seeds, made.paths, made.labels, made.folds, made.logits, None)
    report = Report.of(plain, ("blue", "red"), scan(colours).digest(), recipe(compose_config(f"data.dir={colours}")))
    with pytest.raises(SettingError, match="evaluate again with --int8"):
        check_evaluated(report, compose_config(f"data.dir={colours}"), scan(colours))


def test_differences_of_equals() -> None:
    assert differences({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 2}}) == []
    assert differences({"b": {"c": 2}}, {"b": {"c": 2, "d": 3}}) == ["b.d is None, now 3"]
