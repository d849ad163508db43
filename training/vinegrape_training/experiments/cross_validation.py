"""A recipe measured on images that it was not trained on, all of them: `vinegrape evaluate`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from rich.console import Console

from vinegrape_handler.errors import SettingError
from vinegrape_handler.networks import load_network
from vinegrape_handler.settings import WorkerSettings
from vinegrape_training.data.dataset import Dataset, Split, folds, load_dataset, scan
from vinegrape_training.evaluation.out_of_fold import OUT_OF_FOLD_FILE, OutOfFold
from vinegrape_training.evaluation.plots import draw_confusion, draw_reliability, draw_risk_coverage
from vinegrape_training.evaluation.predictions import Evaluation
from vinegrape_training.evaluation.report import Report
from vinegrape_training.export import parity
from vinegrape_training.export.graph import ServingGraph
from vinegrape_training.export.weights import write_weights
from vinegrape_training.fit.config import check_repeated, data_dir
from vinegrape_training.fit.recipe import differences, recipe
from vinegrape_training.fit.run import RUN_FILE, TEST_FILE, Run
from vinegrape_training.fit.train import train

RECIPE_FILE = "recipe.json"
_WEIGHTS_FOLDER = "weights"  # in a fold's folder: the files that would be served
_INT8_FILE = "test_int8.npz"


@dataclass(frozen=True)
class CrossValidationPlan:
    """How often the images are dealt into how many parts, each of which tests what the others train."""

    seeds: tuple[int, ...]
    folds: int

    def __post_init__(self) -> None:
        if self.folds < 2 or not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise SettingError(f"Cross-validation needs 2 folds or more and seeds that differ; this is {self}.")


def cross_validate(cfg: DictConfig, folder: Path, deals: CrossValidationPlan, *, int8: bool = True) -> Report:
    """Train and test once for each fold of each seed, and write what came of it.

    What stands finished in `folder` is kept, and reported: folds and their int8 files. A fold that was cut
    off is done again.

    Args:
        cfg: `conf/train.yaml`, composed; the recipe. Its seed and run_dir are each fold's own, and its teacher, if it
            has one, is the folder of an evaluation: each fold learns from that fold's network.
        folder: holds the folds (`seed-1/fold-0`, ...), `evaluation.json`, the answers and the plots.
        deals: of the images.
        int8: whether each fold's network is quantised too, on its own training images, and tested.

    Raises:
        SettingError: `folder` holds folds of another recipe, of other images or of another number; or the recipe is one
            that cannot be trained again and again.
        VinegrapeError: whatever `train` cannot work with.
    """
    check_repeated(cfg)
    dataset = scan(data_dir(cfg))
    splits = {seed: folds(dataset, seed, deals.folds) for seed in deals.seeds}
    _begin(folder, cfg, dataset, splits)
    files = (RUN_FILE, _INT8_FILE) if int8 else (RUN_FILE,)
    for seed, parts_of in splits.items():
        for number, parts in enumerate(parts_of):
            fold = _fold_folder(folder, seed, number)
            if not _finished(fold, *files):
                _announce(f"Seed {seed}, fold {number + 1} of {deals.folds}")
                _fold(cfg, fold, dataset, seed, number, parts, int8=int8)
    made = _collect(folder, dataset, splits)
    report = Report.of(made, dataset.classes, dataset.digest(), recipe(cfg))
    report.write(folder)
    made.write(folder / OUT_OF_FOLD_FILE)
    _draw(report, made, folder)
    return report


def first_weights(folder: Path, report: Report) -> Path:
    """The folder of the files that the first fold would serve; all folds' are of one size."""
    return _fold_folder(folder, report.seeds[0], 0) / _WEIGHTS_FOLDER


def _announce(line: str) -> None:
    Console(stderr=True).rule(line, align="left")


def _fold_folder(folder: Path, seed: int, number: int) -> Path:
    return folder / f"seed-{seed}" / f"fold-{number}"


def _begin(folder: Path, cfg: DictConfig, dataset: Dataset, splits: Mapping[int, Sequence[Split]]) -> None:
    """Say in the folder what is evaluated, or make sure that the folds that are finished are of the same."""
    wanted: dict[str, Any] = {"data_digest": dataset.digest(), **recipe(cfg), "teacher": cfg.teacher}
    path = folder / RECIPE_FILE
    if path.is_file() and any(folder.glob(f"seed-*/fold-*/{RUN_FILE}")):
        if differing := differences(json.loads(path.read_text(encoding="utf-8")), wanted):
            raise SettingError(f"{folder} holds another recipe ({'; '.join(differing)}); give another folder.")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
    for seed, parts_of in splits.items():
        for number, parts in enumerate(parts_of):
            fold = _fold_folder(folder, seed, number)
            if _finished(fold, RUN_FILE) and Run.read(fold).split != parts:
                raise SettingError(f"{fold} is a fold of another number than {len(parts_of)}; give another folder.")


def _finished(folder: Path, *files: str) -> bool:
    return all((folder / file).is_file() for file in files)


def _fold(cfg: DictConfig, folder: Path, dataset: Dataset, seed: int, number: int, parts: Split, *, int8: bool) -> None:
    """Train and test a fold, as far as that is not done."""
    if not _finished(folder, RUN_FILE):
        shutil.rmtree(folder, ignore_errors=True)
        own = cfg.copy()
        own.seed, own.run_dir = seed, str(folder)
        if cfg.teacher:
            own.teacher = str(_fold_folder(Path(cfg.teacher), seed, number))
        train(own, parts)
    if int8 and not _finished(folder, _INT8_FILE):
        _test_int8(Run.read(folder), dataset)


def _test_int8(run: Run, dataset: Dataset) -> None:
    """Quantise a fold's network as an export does, and let the file that would be served answer the fold's test."""
    images = load_dataset(dataset, run.input_size, run.interpolation)
    graph = ServingGraph(run.load_model(), run.mean, run.std, temperature=1.0).eval()
    weights = run.folder / _WEIGHTS_FOLDER
    weights.mkdir(exist_ok=True)
    write_weights(graph, run, dataset, images, weights)
    network = load_network(weights, "onnx_int8", WorkerSettings(), "cpu")
    probabilities = parity.run(network, images[dataset.indices_of(run.split.test)], 1)
    logs = torch.from_numpy(np.log(np.maximum(probabilities, np.finfo(np.float32).tiny)))
    Evaluation(logs, torch.from_numpy(dataset.labels_of(run.split.test))).write(run.folder / _INT8_FILE)


def _collect(folder: Path, dataset: Dataset, splits: Mapping[int, Sequence[Split]]) -> OutOfFold:
    """All images' answers from the folds that tested them; int8's too, if every fold has them."""
    shape = (len(splits), len(dataset.paths))
    numbers = torch.empty(shape, dtype=torch.int64)
    logits, int8 = (torch.empty(*shape, len(dataset.classes)) for _ in range(2))
    quantised = True
    for row, (seed, parts_of) in enumerate(splits.items()):
        for number, parts in enumerate(parts_of):
            fold, tested = _fold_folder(folder, seed, number), dataset.indices_of(parts.test)
            numbers[row, tested] = number
            logits[row, tested] = Evaluation.read(fold / TEST_FILE).logits
            quantised = quantised and _finished(fold, _INT8_FILE)
            if quantised:
                int8[row, tested] = Evaluation.read(fold / _INT8_FILE).logits
    labels = torch.tensor(dataset.labels)
    return OutOfFold(tuple(splits), dataset.paths, labels, numbers, logits, int8 if quantised else None)


def _draw(report: Report, made: OutOfFold, folder: Path) -> None:
    confusion = np.array(report.confusion)
    draw_confusion(confusion, report.classes, folder / "confusion.png")
    labels = made.labels.repeat(len(made.seeds)).numpy()
    before = made.logits.double().softmax(dim=2).numpy().reshape(-1, len(report.classes))
    after = made.probabilities(made.logits).reshape(-1, len(report.classes))
    draw_reliability({"as trained": before, "with the temperature": after}, labels, folder / "reliability.png")
    draw_risk_coverage(after, labels, folder / "risk_coverage.png")
