from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from omegaconf import DictConfig

from tests.support.small_config import SMALL, compose_config
from vinegrape_cli.main import vinegrape
from vinegrape_handler.errors import SettingError, VinegrapeError
from vinegrape_handler.metadata import Metadata
from vinegrape_handler.networks import load_network
from vinegrape_handler.settings import WorkerSettings
from vinegrape_training.data.dataset import load_images, scan
from vinegrape_training.errors import ModelError
from vinegrape_training.evaluation.out_of_fold import OutOfFold
from vinegrape_training.evaluation.report import Report
from vinegrape_training.experiments.comparison import compare
from vinegrape_training.experiments.cross_validation import CrossValidationPlan, cross_validate, first_weights
from vinegrape_training.experiments.tune import tune
from vinegrape_training.export.export import export
from vinegrape_training.export.model_card import render
from vinegrape_training.export.parity import ParityLimits
from vinegrape_training.fit.run import Run
from vinegrape_training.fit.train import train

DEALS = CrossValidationPlan(seeds=(1, 2), folds=2)


def recipe_of(drawn: Path, *overrides: str) -> DictConfig:
    steps = ("trainer.max_epochs=6", "data.batch_size=8", "augmentation=light")
    return compose_config(f"data.dir={drawn}", *steps, *overrides)


@pytest.fixture(scope="module")
def evaluation(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folds of drawn leaves for each of two seeds."""
    folder = tmp_path_factory.mktemp("evaluation") / "evaluation"
    cross_validate(recipe_of(drawn), folder, DEALS)
    return folder


def runs(folder: Path) -> list[Run]:
    return [Run.read(path.parent) for path in sorted(folder.glob("seed-*/fold-*/run.json"))]


def written(folder: Path) -> dict[Path, int]:
    return {run.folder: (run.folder / "run.json").stat().st_mtime_ns for run in runs(folder)}


def test_every_image_is_answered_once_a_seed_by_a_network_that_did_not_learn_it(evaluation: Path, drawn: Path) -> None:
    made, dataset = OutOfFold.read(evaluation / "out_of_fold.npz"), scan(drawn)
    images = load_images(drawn, dataset.paths, 32, "bilinear")
    assert made.paths == dataset.paths
    for run in runs(evaluation):
        assert not set(run.split.train) & set(run.split.test)
        assert sorted((*run.split.train, *run.split.test)) == sorted(dataset.paths)
        seed, fold = run.folder.parent.name, run.folder.name
        row = made.seeds.index(int(seed.removeprefix("seed-")))
        tested = dataset.indices_of(run.split.test)
        assert (made.folds[row, tested] == int(fold.removeprefix("fold-"))).all()
        with torch.no_grad():
            pixels = torch.from_numpy(images[tested]).permute(0, 3, 1, 2) / 255
            pixels = (pixels - torch.tensor(run.mean).view(3, 1, 1)) / torch.tensor(run.std).view(3, 1, 1)
            torch.testing.assert_close(made.logits[row, tested], run.load_model()(pixels), rtol=1e-3, atol=1e-3)


def test_int8_answers_are_those_of_the_files_that_would_be_served(evaluation: Path, drawn: Path) -> None:
    made, dataset = OutOfFold.read(evaluation / "out_of_fold.npz"), scan(drawn)
    network = load_network(first_weights(evaluation, Report.read(evaluation)), "onnx_int8", WorkerSettings(), "cpu")
    tested = (made.folds[0] == 0).nonzero().flatten().tolist()
    answers = network(load_images(drawn, [dataset.paths[index] for index in tested], 32, "bilinear"))
    assert made.int8 is not None
    np.testing.assert_allclose(made.int8[0, tested].exp().numpy(), answers, atol=1e-3)


def test_a_fold_that_was_cut_off_is_done_again_and_the_others_stay(evaluation: Path, drawn: Path) -> None:
    before = (evaluation / "evaluation.json").read_text()
    before_times = written(evaluation)
    cut_off = evaluation / "seed-2" / "fold-0"
    (cut_off / "run.json").unlink()
    (cut_off / "test.npz").write_bytes(b"half")
    cross_validate(recipe_of(drawn), evaluation, DEALS)
    assert (evaluation / "evaluation.json").read_text() == before
    changed = {folder for folder, time in written(evaluation).items() if time != before_times[folder]}
    assert changed == {cut_off}


def test_another_recipe_does_not_mix_with_the_folds_that_are_there(evaluation: Path, drawn: Path) -> None:
    with pytest.raises(SettingError, match=r"holds another recipe \(optimizer.mixup is 0.0, now 0.2\)"):
        cross_validate(recipe_of(drawn, "optimizer.mixup=0.2"), evaluation, DEALS)


def test_a_recipe_that_could_not_begin_may_be_corrected(drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no weights file"):
        cross_validate(recipe_of(drawn, "weights=nowhere.pth"), tmp_path / "evaluation", DEALS)
    cross_validate(
        recipe_of(drawn, "trainer.max_epochs=1"), tmp_path / "evaluation", CrossValidationPlan((1,), 2), int8=False
    )


def test_folds_of_another_number_do_not_mix(evaluation: Path, drawn: Path) -> None:
    before = written(evaluation)
    with pytest.raises(SettingError, match="fold-0 is a fold of another number than 5"):
        cross_validate(recipe_of(drawn), evaluation, CrossValidationPlan((1, 2), 5))
    assert written(evaluation) == before


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.devices=2", "trains in one process: leave trainer.devices=2"),
        ("evaluation=runs/x", "evaluation=runs/x is for the one training that follows it"),
        ("input_size=8", "input_size is 8; it must be"),
        ("data.dir=???", "give data.dir=FOLDER"),
    ],
)
def test_what_cannot_be_trained_again_and_again_is_refused_at_once(
    override: str, message: str, drawn: Path, tmp_path: Path
) -> None:
    with pytest.raises(VinegrapeError, match=message):
        cross_validate(recipe_of(drawn, override), tmp_path / "evaluation", DEALS)
    with pytest.raises(VinegrapeError, match=message):
        tune([f"data.dir={drawn}", *SMALL, override], tmp_path / "tune", 1)
    assert not list(tmp_path.iterdir())


def test_what_stands_finished_is_reported_though_nobody_asks_again(evaluation: Path, drawn: Path) -> None:
    before = Report.read(evaluation)
    assert before.int8
    assert cross_validate(recipe_of(drawn), evaluation, DEALS, int8=False) == before


def test_int8_is_tested_on_images_that_have_moved(evaluation: Path, drawn: Path, tmp_path: Path) -> None:
    moved, copy = tmp_path / "leaves", shutil.copytree(evaluation, tmp_path / "evaluation")
    shutil.copytree(drawn, moved)
    for path in copy.glob("seed-*/fold-*/run.json"):
        path.write_text(path.read_text().replace(str(drawn), "/nowhere"))
    (copy / "seed-1" / "fold-0" / "test_int8.npz").unlink()
    again = cross_validate(recipe_of(moved), copy, DEALS)
    assert again.int8 == Report.read(evaluation).int8


def test_plots_are_there_to_look_at(evaluation: Path) -> None:
    for name in ("confusion.png", "reliability.png", "risk_coverage.png"):
        assert (evaluation / name).stat().st_size > 5000


def test_what_ships_learns_from_all_images_and_quotes_the_evaluation(
    evaluation: Path, drawn: Path, tmp_path: Path
) -> None:
    result = train(recipe_of(drawn, f"evaluation={evaluation}", f"run_dir={tmp_path / 'run'}"))
    report = Report.read(evaluation)
    assert result.run.split.train == scan(drawn).paths
    assert len(result.history) == 6
    assert result.run.temperature == report.temperature
    export(tmp_path / "run", tmp_path / "export", limits=ParityLimits(int8_agreement=0.5))
    metadata = Metadata.read(tmp_path / "export")
    assert metadata.metrics["test_accuracy"] == report.accuracy
    card = render(metadata, 1_000_000)
    assert "dealt into 2 parts" in card
    assert "2 times" in card
    assert f"| accuracy, as trained | {report.accuracy:.1%} |" in card


def test_what_ships_must_be_what_was_evaluated(evaluation: Path, drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"trainer.max_epochs is 6, now 7"):
        train(recipe_of(drawn, f"evaluation={evaluation}", "trainer.max_epochs=7", f"run_dir={tmp_path / 'run'}"))
    with pytest.raises(SettingError, match=r"leave trainer.devices=2 and trainer.num_nodes=1 at 1"):
        train(recipe_of(drawn, f"evaluation={evaluation}", "trainer.devices=2", f"run_dir={tmp_path / 'run'}"))
    assert not (tmp_path / "run").exists()


def test_each_fold_learns_from_its_own_fold_of_the_teacher(evaluation: Path, drawn: Path, tmp_path: Path) -> None:
    cfg = recipe_of(drawn, f"teacher={evaluation}", "trainer.max_epochs=1")
    report = cross_validate(cfg, tmp_path / "student", CrossValidationPlan((1,), 2), int8=False)
    assert report.recipe["teacher"] is True
    # a deal of which the teacher has seen other parts
    (evaluation / "seed-3").symlink_to(evaluation / "seed-1")
    try:
        with pytest.raises(SettingError, match=r"was trained on \d+ of the validation and test images"):
            cross_validate(cfg, tmp_path / "leaking", CrossValidationPlan((3,), 2), int8=False)
    finally:
        (evaluation / "seed-3").unlink()


@pytest.mark.parametrize(("seeds", "folds"), [((), 5), ((1, 1), 5), ((1,), 1)])
def test_deals_that_are_none(seeds: tuple[int, ...], folds: int) -> None:
    with pytest.raises(SettingError, match="Cross-validation needs 2 folds or more and seeds that differ"):
        CrossValidationPlan(seeds, folds)


def test_the_command_prints_the_figures_and_goes_on_from_what_is_there(evaluation: Path, drawn: Path) -> None:
    steps = ["trainer.max_epochs=6", "data.batch_size=8", "augmentation=light"]
    options = ["--seed", "1", "--seed", "2", "--folds", "2"]
    result = CliRunner().invoke(vinegrape, ["evaluate", str(evaluation), *options, f"data.dir={drawn}", *SMALL, *steps])
    assert result.exit_code == 0, result.output
    report = Report.read(evaluation)
    assert report.table() in result.output
    assert f"{report.accuracy:.2%}; 95 % interval" in result.output


def test_evaluations_side_by_side(evaluation: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(evaluation, tmp_path / "again")
    first, second = compare([evaluation, copy], tmp_path / "comparison")
    assert (first.name, second.name) == ("evaluation", "again")
    assert first.relative_latency == 1.0
    assert first.accuracy == second.accuracy == Report.read(evaluation).accuracy
    assert first.weights_mb == second.weights_mb
    # the small CNN has 1.2 million parameters: a byte each in int8, four in TorchScript
    assert 3 < first.weights_mb < 7
    table = (tmp_path / "comparison" / "comparison.md").read_text()
    assert table.count("| `small_cnn` | nothing | 32 |") == 2
    assert (tmp_path / "comparison" / "comparison.png").stat().st_size > 5000


def test_an_evaluation_without_int8_cannot_be_compared(evaluation: Path, tmp_path: Path) -> None:
    dataclasses.replace(Report.read(evaluation), int8=None).write(tmp_path)
    with pytest.raises(SettingError, match="was evaluated without int8; run it again with --int8"):
        compare([tmp_path], tmp_path / "comparison")
