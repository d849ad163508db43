"""Cross-validation of a recipe: `vinegrape evaluate`."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from rich.console import Console

from vinegrape_handler.errors import SettingError
from vinegrape_handler.networks import load_network
from vinegrape_handler.reference import Reference
from vinegrape_handler.settings import WorkerSettings
from vinegrape_training.data.dataset import Dataset, Split, folds, load_dataset, scan
from vinegrape_training.evaluation.out_of_fold import OUT_OF_FOLD_FILE, OutOfFold
from vinegrape_training.evaluation.plots import draw_confusion, draw_reliability, draw_risk_coverage
from vinegrape_training.evaluation.predictions import Evaluation
from vinegrape_training.evaluation.reference import make_reference
from vinegrape_training.evaluation.report import Report
from vinegrape_training.export import parity
from vinegrape_training.export.graph import ServingGraph
from vinegrape_training.export.weights import write_weights
from vinegrape_training.fit.config import check_repeated, data_dir
from vinegrape_training.fit.recipe import differences, recipe
from vinegrape_training.fit.run import RUN_FILE, TEST_FILE, Run
from vinegrape_training.fit.train import train

TrainFold = Callable[[DictConfig, Split], object]  # trains, tests, and writes the folder that `run_dir` names

RECIPE_FILE = "recipe.json"
INT8_FILE = "test_int8.npz"
WEIGHTS_FOLDER = "weights"  # in the folder of a fold: the files that would be served


@dataclass(frozen=True)
class CrossValidationPlan:
    """The splits of a cross-validation.

    Attributes:
        seeds: one split into folds per seed.
        folds: number of folds per split. Each fold tests the network that was trained on the others.
    """

    seeds: tuple[int, ...]
    folds: int

    def __post_init__(self) -> None:
        if self.folds < 2 or not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise SettingError(
                f"folds is {self.folds} and seeds is {self.seeds}. "
                "Cross-validation needs at least 2 folds and different seeds."
            )


def cross_validate(
    cfg: DictConfig, folder: Path, plan: CrossValidationPlan, *, int8: bool = True, train_fold: TrainFold = train
) -> Report:
    """Train and test one network per fold and seed, and write the predictions, figures and plots.

    Finished folds and int8 files in `folder` are kept. An interrupted fold is trained again.

    Args:
        cfg: `conf/train.yaml`, composed: the recipe. Seed and run_dir are replaced for each fold. If `teacher` is set,
            it is the folder of another evaluation, and each fold learns from the same fold there.
        folder: for the folds (`seed-1/fold-0`, ...), `evaluation.json`, the predictions and the plots.
        plan: seeds and folds.
        int8: also quantise each fold's network, calibrated on the fold's training images, and test it.
        train_fold: trains one fold.

    Raises:
        SettingError: `folder` holds folds of another recipe, of other images or of another number of folds, or a
            setting does not suit repeated training.
        VinegrapeError: an error of `train_fold`.
    """
    check_repeated(cfg)
    dataset = scan(data_dir(cfg))
    splits = {seed: folds(dataset, seed, plan.folds) for seed in plan.seeds}
    _begin(folder, cfg, dataset, splits)
    files = (RUN_FILE, INT8_FILE) if int8 else (RUN_FILE,)
    for seed, folds_of_seed in splits.items():
        for number, parts in enumerate(folds_of_seed):
            fold = _fold_folder(folder, seed, number)
            if _has_files(fold, *files):
                continue
            _print_heading(f"Seed {seed}, fold {number + 1} of {plan.folds}")
            if not _has_files(fold, RUN_FILE):
                shutil.rmtree(fold, ignore_errors=True)
                train_fold(_fold_config(cfg, fold, seed, number), parts)
            if int8 and not _has_files(fold, INT8_FILE):
                _test_int8(Run.read(fold), dataset)
    predictions = _collect(folder, dataset, splits)
    report = Report.of(predictions, dataset.classes, dataset.digest(), recipe(cfg))
    report = dataclasses.replace(report, reference=_reference(folder, report, predictions, dataset))
    report.write(folder)
    predictions.write(folder / OUT_OF_FOLD_FILE)
    _draw(report, predictions, folder)
    return report


def first_weights(folder: Path, report: Report) -> Path:
    """Return the folder with the first fold's weights files, as they would be served."""
    return _fold_folder(folder, report.seeds[0], 0) / WEIGHTS_FOLDER


def _print_heading(line: str) -> None:
    Console(stderr=True).rule(line, align="left")


def _fold_folder(folder: Path, seed: int, number: int) -> Path:
    return folder / f"seed-{seed}" / f"fold-{number}"


def _begin(folder: Path, cfg: DictConfig, dataset: Dataset, splits: Mapping[int, Sequence[Split]]) -> None:
    """Write the recipe to the folder, or check that the finished folds have the same recipe and splits."""
    evaluated: dict[str, Any] = {"data_digest": dataset.digest(), **recipe(cfg), "teacher": cfg.teacher}
    path = folder / RECIPE_FILE
    if path.is_file() and any(folder.glob(f"seed-*/fold-*/{RUN_FILE}")):
        if differing := differences(json.loads(path.read_text(encoding="utf-8")), evaluated):
            raise SettingError(f"{folder} holds another recipe ({'; '.join(differing)}). Give another folder.")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(evaluated, indent=2) + "\n", encoding="utf-8")
    for seed, folds_of_seed in splits.items():
        for number, parts in enumerate(folds_of_seed):
            fold = _fold_folder(folder, seed, number)
            if _has_files(fold, RUN_FILE) and Run.read(fold).split != parts:
                raise SettingError(
                    f"{fold} does not belong to a split into {len(folds_of_seed)} folds. Give another folder."
                )


def _has_files(folder: Path, *files: str) -> bool:
    return all((folder / file).is_file() for file in files)


def _fold_config(cfg: DictConfig, folder: Path, seed: int, number: int) -> DictConfig:
    fold_cfg = cfg.copy()
    fold_cfg.seed, fold_cfg.run_dir = seed, str(folder)
    if cfg.teacher:
        fold_cfg.teacher = str(_fold_folder(Path(cfg.teacher), seed, number))
    return fold_cfg


def _test_int8(run: Run, dataset: Dataset) -> None:
    """Quantise a fold's network as an export does, and classify the fold's test images with the int8 file."""
    images = load_dataset(dataset, run.input_size, run.interpolation)
    graph = ServingGraph(run.load_model(), run.mean, run.std, temperature=1.0).eval()
    weights = run.folder / WEIGHTS_FOLDER
    weights.mkdir(exist_ok=True)
    write_weights(graph, run, dataset, images, weights)
    network = load_network(weights, "onnx_int8", WorkerSettings(), "cpu")
    probabilities = parity.run(network, images[dataset.indices_of(run.split.test)], 1)
    log_probabilities = torch.from_numpy(np.log(np.maximum(probabilities, np.finfo(np.float32).tiny)))
    Evaluation(log_probabilities, torch.from_numpy(dataset.labels_of(run.split.test))).write(run.folder / INT8_FILE)


def _collect(folder: Path, dataset: Dataset, splits: Mapping[int, Sequence[Split]]) -> OutOfFold:
    """Collect the predictions of all folds; int8 predictions only if every fold has them."""
    shape = (len(splits), len(dataset.paths))
    fold_numbers = torch.empty(shape, dtype=torch.int64)
    logits, int8 = (torch.empty(*shape, len(dataset.classes)) for _ in range(2))
    quantised = True
    for row, (seed, folds_of_seed) in enumerate(splits.items()):
        for number, parts in enumerate(folds_of_seed):
            fold, tested = _fold_folder(folder, seed, number), dataset.indices_of(parts.test)
            fold_numbers[row, tested] = number
            logits[row, tested] = Evaluation.read(fold / TEST_FILE).logits
            quantised = quantised and _has_files(fold, INT8_FILE)
            if quantised:
                int8[row, tested] = Evaluation.read(fold / INT8_FILE).logits
    labels = torch.tensor(dataset.labels)
    return OutOfFold(tuple(splits), dataset.paths, labels, fold_numbers, logits, int8 if quantised else None)


def _reference(folder: Path, report: Report, predictions: OutOfFold, dataset: Dataset) -> Reference:
    """Return the reference distributions of the predictions and of the images."""
    run = Run.read(_fold_folder(folder, report.seeds[0], 0))
    images = load_dataset(dataset, run.input_size, run.interpolation)
    probabilities = predictions.probabilities(predictions.logits)
    return make_reference(report.classes, probabilities, None, images)


def _draw(report: Report, predictions: OutOfFold, folder: Path) -> None:
    draw_confusion(np.array(report.confusion), report.classes, folder / "confusion.png")
    labels = predictions.labels.repeat(len(predictions.seeds)).numpy()
    before = predictions.logits.double().softmax(dim=2).numpy().reshape(-1, len(report.classes))
    after = predictions.probabilities(predictions.logits).reshape(-1, len(report.classes))
    draw_reliability({"without temperature": before, "with temperature": after}, labels, folder / "reliability.png")
    draw_risk_coverage(after, labels, folder / "risk_coverage.png")
