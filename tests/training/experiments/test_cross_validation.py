"""Cross-validation: orchestration with a stand-in for `train`, and two folds that are really trained."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from omegaconf import DictConfig
from PIL import Image

from tests.support.runs import FoldTraining
from tests.support.small_config import SMALL, compose_config
from vinegrape_cli.main import vinegrape
from vinegrape_handler.errors import SettingError, VinegrapeError
from vinegrape_handler.networks import load_network
from vinegrape_handler.settings import WorkerSettings
from vinegrape_training.data.dataset import load_images, scan
from vinegrape_training.errors import ModelError
from vinegrape_training.evaluation.out_of_fold import OutOfFold
from vinegrape_training.evaluation.report import Report
from vinegrape_training.evaluation.robustness import conditions
from vinegrape_training.experiments import cross_validation
from vinegrape_training.experiments.cross_validation import (
    INT8_FILE,
    CrossValidationPlan,
    cross_validate,
    first_weights,
)
from vinegrape_training.experiments.robustness import measure_evaluation
from vinegrape_training.experiments.tune import search
from vinegrape_training.fit.run import Run
from vinegrape_training.fit.train import train

pytestmark = pytest.mark.usefixtures("plots_are_not_rendered")

PLAN = CrossValidationPlan(seeds=(1, 2), folds=2)
FOLDS = ["seed-1/fold-0", "seed-1/fold-1", "seed-2/fold-0", "seed-2/fold-1"]
PLOTS = ("confusion.png", "reliability.png", "risk_coverage.png")

WRONG = "blue/00.png"  # with seed 1, and in int8 also with seed 2


@pytest.fixture(scope="module")
def cfg(images: Path) -> DictConfig:
    return compose_config(f"data.dir={images}")


@pytest.fixture(scope="module")
def finished(cfg: DictConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of two folds for each of two seeds, made without training."""
    folder = tmp_path_factory.mktemp("finished") / "evaluation"
    training = FoldTraining(wrong={1: {WRONG}}, wrong_int8={1: {WRONG}, 2: {WRONG}})
    cross_validate(cfg, folder, PLAN, train_fold=training)
    assert training.folders == FOLDS
    return folder


@pytest.fixture
def evaluation(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished evaluation, which a test may change."""
    return shutil.copytree(finished, tmp_path / "evaluation")


def runs(folder: Path) -> list[Run]:
    return [Run.read(path.parent) for path in sorted(folder.glob("seed-*/fold-*/run.json"))]


def not_called(cfg: DictConfig, parts: object, outlier_parts: object) -> None:
    pytest.fail(f"{cfg.run_dir} is trained")


def test_each_image_is_tested_once_per_seed_by_a_network_that_was_not_trained_on_it(
    finished: Path, images: Path
) -> None:
    predictions, dataset = OutOfFold.read(finished / "out_of_fold.npz"), scan(images)
    assert (predictions.seeds, predictions.paths) == ((1, 2), dataset.paths)
    for run in runs(finished):
        assert not set(run.split.train) & set(run.split.test)
        assert sorted((*run.split.train, *run.split.test)) == sorted(dataset.paths)
        seed, fold = run.folder.parent.name, run.folder.name
        row = predictions.seeds.index(int(seed.removeprefix("seed-")))
        tested = dataset.indices_of(run.split.test)
        assert (predictions.folds[row, tested] == int(fold.removeprefix("fold-"))).all()


def test_the_predictions_of_all_folds_are_collected(finished: Path, images: Path) -> None:
    report, dataset = Report.read(finished), scan(images)
    assert report.accuracy_by_seed == {"1": pytest.approx(0.95), "2": 1.0}
    assert report.wrong == {WRONG: ["red"]}
    assert report.int8 is not None
    assert report.int8["accuracy"] == pytest.approx(0.95)
    assert report.int8["more_wrong"] == {"1": 0, "2": 1}
    assert (report.images, report.folds, report.seeds) == (20, 2, (1, 2))
    assert report.data_digest == dataset.digest()


def test_each_fold_has_its_own_seed_and_the_settings_of_the_recipe(images: Path, tmp_path: Path) -> None:
    training = FoldTraining()
    cfg = compose_config(f"data.dir={images}", "optimizer.mixup=0.2")
    cross_validate(cfg, tmp_path / "evaluation", PLAN, int8=False, train_fold=training)
    assert [fold.seed for fold in training.configs] == [1, 1, 2, 2]
    assert {fold.optimizer.mixup for fold in training.configs} == {0.2}


def test_all_plots_are_written(finished: Path) -> None:
    """A smoke test; test_plots.py looks at what the plots show."""
    for name in PLOTS:
        assert (finished / name).read_bytes().startswith(b"\x89PNG")


def test_an_interrupted_fold_is_trained_again_and_the_others_are_kept(evaluation: Path, cfg: DictConfig) -> None:
    before = Report.read(evaluation)
    interrupted = evaluation / "seed-2" / "fold-0"
    (interrupted / "run.json").unlink()
    (interrupted / "test.npz").write_bytes(b"half")
    training = FoldTraining(wrong_int8={2: {WRONG}})
    again = cross_validate(cfg, evaluation, PLAN, train_fold=training)
    assert training.folders == ["seed-2/fold-0"]
    assert again == before


def test_another_recipe_is_refused(finished: Path, images: Path) -> None:
    cfg = compose_config(f"data.dir={images}", "optimizer.mixup=0.2")
    with pytest.raises(SettingError, match=r"holds another recipe \(.*optimizer.mixup.*0.0.*0.2.*Give another folder"):
        cross_validate(cfg, finished, PLAN, train_fold=not_called)


def test_another_number_of_folds_is_refused(finished: Path, cfg: DictConfig) -> None:
    with pytest.raises(SettingError, match="fold-0 does not belong to a split into 5 folds"):
        cross_validate(cfg, finished, CrossValidationPlan((1, 2), 5), train_fold=not_called)


@pytest.mark.parametrize("other", ["recipe", "folds", "code", "damaged"])
def test_folds_of_something_else_are_replaced_if_the_caller_wants_it(
    other: str, evaluation: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = compose_config(f"data.dir={images}", *(["optimizer.mixup=0.2"] if other == "recipe" else []))
    plan = CrossValidationPlan((1, 2), 5) if other == "folds" else PLAN
    if other == "code":
        monkeypatch.setattr(cross_validation, "_code_digest", lambda: "another digest")
    if other == "damaged":
        (evaluation / FOLDS[0] / "run.json").write_text("{}")
    (evaluation / "stage_outputs").mkdir()
    training = FoldTraining()
    cross_validate(cfg, evaluation, plan, int8=False, replace_other=True, train_fold=training)
    assert len(training.folders) == 2 * plan.folds
    assert not (evaluation / "stage_outputs").exists()
    # now they are those of this recipe, so they are kept
    cross_validate(cfg, evaluation, plan, int8=False, replace_other=True, train_fold=not_called)


def test_an_interrupted_evaluation_is_resumed_if_others_are_replaced(evaluation: Path, cfg: DictConfig) -> None:
    (evaluation / "seed-2" / "fold-0" / "run.json").unlink()
    training = FoldTraining(wrong_int8={2: {WRONG}})
    cross_validate(cfg, evaluation, PLAN, replace_other=True, train_fold=training)
    assert training.folders == ["seed-2/fold-0"]


def test_the_folds_of_other_code_are_kept_unless_the_caller_wants_otherwise(
    evaluation: Path, cfg: DictConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_validation, "_code_digest", lambda: "another digest")
    cross_validate(cfg, evaluation, PLAN, train_fold=not_called)


def test_a_recipe_without_any_finished_fold_can_be_changed(cfg: DictConfig, images: Path, tmp_path: Path) -> None:
    def fails(cfg: DictConfig, parts: object, outlier_parts: object) -> None:
        raise ModelError("there is no weights file")

    wrong = compose_config(f"data.dir={images}", "weights=nowhere.pth")
    with pytest.raises(ModelError):
        cross_validate(wrong, tmp_path / "new", PLAN, train_fold=fails)
    cross_validate(cfg, tmp_path / "new", PLAN, int8=False, train_fold=FoldTraining())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.devices=2", "trainer.devices=2"),
        ("evaluation=runs/x", "evaluation=runs/x"),
        ("input_size=8", "input_size"),
        ("data.dir=???", "data.dir=FOLDER"),
    ],
)
def test_settings_that_do_not_suit_repeated_training_are_refused_before_it(
    override: str, message: str, images: Path, tmp_path: Path
) -> None:
    overrides = (f"data.dir={images}", override)
    with pytest.raises(VinegrapeError, match=message):
        cross_validate(compose_config(*overrides), tmp_path / "evaluation", PLAN, train_fold=not_called)
    with pytest.raises(VinegrapeError, match=message):
        search([*SMALL, *overrides], tmp_path / "tune", 1, train_trial=not_called)
    assert not list(tmp_path.iterdir())


def test_finished_int8_files_are_reported_without_the_option(evaluation: Path, cfg: DictConfig) -> None:
    before = Report.read(evaluation)
    assert before.int8
    assert cross_validate(cfg, evaluation, PLAN, int8=False, train_fold=not_called) == before


def test_int8_is_not_reported_if_a_fold_has_no_int8_file(evaluation: Path, cfg: DictConfig) -> None:
    (evaluation / "seed-1" / "fold-1" / INT8_FILE).unlink()
    assert cross_validate(cfg, evaluation, PLAN, int8=False, train_fold=not_called).int8 is None


def test_each_fold_learns_from_the_same_fold_of_the_teacher(evaluation: Path, images: Path, tmp_path: Path) -> None:
    training = FoldTraining()
    cfg = compose_config(f"data.dir={images}", f"teacher={evaluation}")
    report = cross_validate(cfg, tmp_path / "student", PLAN, int8=False, train_fold=training)
    assert [fold.teacher for fold in training.configs] == [str(evaluation / fold) for fold in FOLDS]
    assert report.recipe["teacher"] is True


def test_a_teacher_that_was_trained_on_the_fold_is_refused(evaluation: Path, images: Path, tmp_path: Path) -> None:
    shutil.copytree(evaluation / "seed-1", evaluation / "seed-3")  # seed 3 splits the images in another way
    cfg = compose_config(f"data.dir={images}", f"teacher={evaluation}")
    with pytest.raises(SettingError, match="trained on"):
        cross_validate(cfg, tmp_path / "student", CrossValidationPlan((3,), 2), int8=False)


@pytest.mark.parametrize("override", ["trainer.max_epochs=7", "trainer.devices=2"])
def test_a_network_that_ships_must_have_the_recipe_that_was_evaluated(
    override: str, evaluation: Path, images: Path, tmp_path: Path
) -> None:
    cfg = compose_config(f"data.dir={images}", f"evaluation={evaluation}", override, f"run_dir={tmp_path / 'run'}")
    with pytest.raises(SettingError, match=override.partition("=")[0]):
        train(cfg)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("seeds", "folds"), [((), 5), ((1, 1), 5), ((1,), 1)])
def test_a_plan_without_different_seeds_or_with_one_fold_is_refused(seeds: tuple[int, ...], folds: int) -> None:
    with pytest.raises(SettingError, match="Cross-validation needs at least 2 folds and different seeds"):
        CrossValidationPlan(seeds, folds)


def test_the_command_prints_the_figures_of_a_finished_evaluation(evaluation: Path, images: Path) -> None:
    options = ["--seed", "1", "--seed", "2", "--folds", "2"]
    result = CliRunner().invoke(vinegrape, ["evaluate", str(evaluation), *options, f"data.dir={images}", *SMALL])
    assert result.exit_code == 0, result.output
    report = Report.read(evaluation)
    assert report.table() in result.output
    assert f"{report.accuracy:.2%}; 95 % interval" in result.output


def trained_recipe(images: Path, *overrides: str) -> DictConfig:
    steps = ("trainer.max_epochs=6", "data.batch_size=8", "augmentation=light")
    return compose_config(f"data.dir={images}", *steps, *overrides)


@pytest.fixture(scope="module")
def trained(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folds that are really trained and quantised. The images move between training and quantisation."""
    folder, plan = tmp_path_factory.mktemp("trained") / "evaluation", CrossValidationPlan((1,), 2)
    assert cross_validate(trained_recipe(drawn), folder, plan, int8=False).int8 is None
    for path in folder.glob("seed-*/fold-*/run.json"):
        path.write_text(path.read_text().replace(str(drawn), "/nowhere"))
    assert cross_validate(trained_recipe(drawn), folder, plan).int8 is not None
    return folder


@pytest.mark.trains
@pytest.mark.xdist_group("cross_validation")
def test_out_of_fold_logits_are_those_of_the_fold_that_tested_the_image(trained: Path, drawn: Path) -> None:
    predictions, dataset = OutOfFold.read(trained / "out_of_fold.npz"), scan(drawn)
    images = load_images(drawn, dataset.paths, 32, "bilinear")
    for run in runs(trained):
        tested = dataset.indices_of(run.split.test)
        with torch.no_grad():
            pixels = torch.from_numpy(images[tested]).permute(0, 3, 1, 2) / 255
            pixels = (pixels - torch.tensor(run.mean).view(3, 1, 1)) / torch.tensor(run.std).view(3, 1, 1)
            logits = run.load_model()(pixels)
        torch.testing.assert_close(predictions.logits[0, tested], logits, rtol=1e-3, atol=1e-3)


@pytest.mark.trains
@pytest.mark.xdist_group("cross_validation")
def test_int8_predictions_are_those_of_the_files_that_would_be_served(trained: Path, drawn: Path) -> None:
    predictions, dataset = OutOfFold.read(trained / "out_of_fold.npz"), scan(drawn)
    network = load_network(first_weights(trained, Report.read(trained)), "onnx_int8", WorkerSettings(), "cpu")
    tested = (predictions.folds[0] == 0).nonzero().flatten().tolist()
    probabilities = network(
        load_images(drawn, [dataset.paths[index] for index in tested], 32, "bilinear")
    ).probabilities
    assert predictions.int8 is not None
    np.testing.assert_allclose(predictions.int8[0, tested].exp().numpy(), probabilities, atol=1e-3)


@pytest.mark.trains
@pytest.mark.xdist_group("cross_validation")
def test_a_network_that_ships_is_trained_on_all_images_and_quotes_the_evaluation(
    trained: Path, drawn: Path, tmp_path: Path
) -> None:
    measure_evaluation(trained, drawn, conditions(required_only=True)[:2]).write(trained)
    result = train(trained_recipe(drawn, f"evaluation={trained}", f"run_dir={tmp_path / 'run'}"))
    report = Report.read(trained)
    assert result.run.split.train == scan(drawn).paths
    assert len(result.history) == 6
    assert result.run.temperature == report.temperature
    assert report.metrics().items() <= result.run.metrics.items()
    assert result.run.metrics.keys() >= {"robustness_clean_accuracy", "robustness_dark_0.6_accuracy"}


@pytest.fixture(scope="module")
def outliers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve outliers, each of its own source, of two kinds; `FoldTraining` knows their scores."""
    folder = tmp_path_factory.mktemp("outliers")
    for path in (f"{kind}/{source}/1.png" for kind in ("far", "near") for source in "abcdef"):
        (folder / path).parent.mkdir(parents=True)
        Image.new("RGB", (8, 8), "grey").save(folder / path)
    return folder


def test_outliers_are_scored_by_the_folds_that_have_not_seen_them(
    cfg: DictConfig, outliers: Path, tmp_path: Path
) -> None:
    with_outliers = cfg.copy()
    with_outliers.outliers.dir = str(outliers)
    report = cross_validate(with_outliers, tmp_path, PLAN, train_fold=FoldTraining(wrong_int8={1: {WRONG}}))
    assert report.abstention is not None
    # leaves have the score -5, far outliers 5, near ones -6, which no threshold separates: it is just below 5
    below = float(np.nextafter(np.float32(5), np.float32(0)))
    assert report.abstention["threshold"] == below
    assert report.abstention["known"] == 1
    assert report.abstention["accuracy"] == pytest.approx(39 / 40)
    refused, passed = {"passed": 0.0, "auroc": 1.0}, {"passed": 1.0, "auroc": 0.0}
    assert report.abstention["kinds"] == {
        "far": {"images": 6, "new_source": refused, "new_species": refused},
        "near": {"images": 6, "new_source": passed, "new_species": passed},
    }
    predictions = OutOfFold.read(tmp_path / "out_of_fold.npz")
    assert predictions.outliers is not None
    assert predictions.outliers.paths[5:7] == ("far/f/1.png", "near/a/1.png")
    assert (predictions.thresholds() == below).all()
    assert report.recipe["outliers"] == {"per_batch": 2, "weight": 1.0}
    assert Report.read(tmp_path).ood_threshold == below
    assert "near, 6" in report.table()


@pytest.mark.trains
def test_a_network_with_outliers_is_trained_quantised_and_scored(
    cfg: DictConfig, outliers: Path, tmp_path: Path
) -> None:
    short = cfg.copy()
    short.outliers.dir, short.trainer.max_epochs = str(outliers), 1
    report = cross_validate(short, tmp_path, CrossValidationPlan((1,), 2))
    assert report.abstention is not None
    assert set(report.abstention["kinds"]) == {"far", "near"}
    run = Run.read(tmp_path / "seed-1/fold-0")
    assert run.has_ood_score
    assert run.ood_threshold == 0
    network = load_network(first_weights(tmp_path, report), "onnx_fp32", WorkerSettings(), "cpu")
    scores = network(np.zeros((2, 32, 32, 3), np.uint8)).ood_scores
    assert scores is not None
    assert scores.shape == (2,)


@pytest.mark.trains
def test_the_folds_share_the_outputs_of_the_frozen_stages(cfg: DictConfig, tmp_path: Path) -> None:
    short = cfg.copy()
    short.model.architecture, short.model.frozen_stages, short.trainer.max_epochs = "mobilenetv2_035", 2, 2
    cross_validate(short, tmp_path, CrossValidationPlan((1,), 2), int8=False)
    (file,) = (tmp_path / "stage_outputs").iterdir()
    assert len(np.load(file)) == 2  # one version of each image per epoch
    first, second = (Run.read(tmp_path / f"seed-1/fold-{number}").load_model().state_dict() for number in (0, 1))
    stem = next(iter(first))
    assert torch.equal(first[stem], second[stem])
    assert any(not torch.equal(first[name], second[name]) for name in first)
