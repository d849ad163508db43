"""Cross-validation of a recipe: `vinegrape evaluate`."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from rich.console import Console
from torch import Tensor

import vinegrape_handler
import vinegrape_training
from vinegrape_handler.errors import SettingError
from vinegrape_handler.networks import Outputs, load_network
from vinegrape_handler.reference import Reference
from vinegrape_handler.settings import WorkerSettings
from vinegrape_training.data.dataset import Dataset, Split, files_digest, folds, load_dataset, scan
from vinegrape_training.data.outliers import Outliers, OutlierSplit, load_outliers, outlier_folds, scan_outliers
from vinegrape_training.errors import RunError
from vinegrape_training.evaluation.out_of_fold import OUT_OF_FOLD_FILE, OutlierScores, OutOfFold
from vinegrape_training.evaluation.plots import draw_confusion, draw_reliability, draw_risk_coverage
from vinegrape_training.evaluation.predictions import Evaluation
from vinegrape_training.evaluation.reference import make_reference
from vinegrape_training.evaluation.report import Report
from vinegrape_training.export import parity
from vinegrape_training.export.graph import graph_of
from vinegrape_training.export.weights import write_weights
from vinegrape_training.files import atomic_write
from vinegrape_training.fit.artifacts import log_evaluation
from vinegrape_training.fit.config import check_repeated, data_dir
from vinegrape_training.fit.recipe import differences, recipe
from vinegrape_training.fit.resume import is_resumable
from vinegrape_training.fit.run import RUN_FILE, TEST_FILE, Run
from vinegrape_training.fit.train import train

# trains, tests, and writes the folder that `run_dir` names
TrainFold = Callable[[DictConfig, Split, OutlierSplit | None], object]

RECIPE_FILE = "recipe.json"
INT8_FILE = "test_int8.npz"
OUTLIERS_FILE = "outliers_int8.npz"
STAGE_OUTPUTS_FOLDER = "stage_outputs"
_CODE = "code"  # in the recipe's file: `_code_digest`
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
    cfg: DictConfig,
    folder: Path,
    plan: CrossValidationPlan,
    *,
    int8: bool = True,
    replace_other: bool = False,
    train_fold: TrainFold = train,
) -> Report:
    """Train and test one network per fold and seed, and write the predictions, figures and plots.

    Finished folds and int8 files in `folder` are kept. An interrupted fold continues after its last complete epoch if
    its settings are the same; otherwise it is trained again.

    Args:
        cfg: `conf/train.yaml`, composed: the recipe. Seed and run_dir are replaced for each fold. If `teacher` is set,
            it is the folder of another evaluation, and each fold learns from the same fold there.
        folder: for the folds (`seed-1/fold-0`, ...), `evaluation.json`, the predictions and the plots.
        plan: seeds and folds.
        int8: also quantise each fold's network, calibrated on the fold's training images, and test it.
        replace_other: delete the folds in `folder` if they are of another recipe, of other images, of another number of
            folds or of other code.
        train_fold: trains one fold.

    Raises:
        SettingError: `folder` holds folds of another recipe, of other images or of another number of folds, or a
            setting does not suit repeated training.
        VinegrapeError: an error of `train_fold`.
    """
    check_repeated(cfg)
    dataset = scan(data_dir(cfg))
    splits = {seed: folds(dataset, seed, plan.folds) for seed in plan.seeds}
    outliers = scan_outliers(Path(cfg.outliers.dir)) if cfg.outliers.dir else None
    held_out = {seed: outlier_folds(outliers, seed, plan.folds) for seed in plan.seeds} if outliers else None
    _begin(folder, cfg, dataset, outliers, splits, replace_other=replace_other)
    files = (RUN_FILE, INT8_FILE) if int8 else (RUN_FILE,)
    for seed, folds_of_seed in splits.items():
        for number, parts in enumerate(folds_of_seed):
            fold = _fold_folder(folder, seed, number)
            if _has_files(fold, *files):
                continue
            _print_heading(f"Seed {seed}, fold {number + 1} of {plan.folds}")
            outlier_parts = held_out[seed][number] if held_out else None
            if not _has_files(fold, RUN_FILE):
                fold_cfg = _fold_config(cfg, fold, seed, number)
                if not is_resumable(fold, fold_cfg):
                    shutil.rmtree(fold, ignore_errors=True)
                train_fold(fold_cfg, parts, outlier_parts)
            if int8 and not _has_files(fold, INT8_FILE):
                _test_int8(Run.read(fold), dataset, outliers)
    predictions = _collect(folder, dataset, splits)
    if outliers and held_out and predictions.int8 is not None:
        predictions = replace(predictions, outliers=_collect_outliers(folder, outliers, held_out))
    report = Report.of(predictions, dataset.classes, dataset.digest(), recipe(cfg))
    report = replace(report, reference=_reference(folder, report, predictions, dataset))
    report.write(folder)
    predictions.write(folder / OUT_OF_FOLD_FILE)
    _draw(report, predictions, folder)
    log_evaluation(cfg, folder, report, dataset)
    return report


def first_weights(folder: Path, report: Report) -> Path:
    """Return the folder with the first fold's weights files, as they would be served."""
    return weights_of_fold(folder, report.seeds[0], 0)


def weights_of_fold(folder: Path, seed: int, number: int) -> Path:
    """Return the folder with a fold's weights files. Its int8 file has no temperature: the logits are divided by 1."""
    return _fold_folder(folder, seed, number) / WEIGHTS_FOLDER


def _print_heading(line: str) -> None:
    Console(stderr=True).rule(line, align="left")


def _fold_folder(folder: Path, seed: int, number: int) -> Path:
    return folder / f"seed-{seed}" / f"fold-{number}"


def _begin(
    folder: Path,
    cfg: DictConfig,
    dataset: Dataset,
    outliers: Outliers | None,
    splits: Mapping[int, Sequence[Split]],
    *,
    replace_other: bool,
) -> None:
    """Write the recipe to the folder, or check that the finished folds have the same recipe and splits."""
    evaluated: dict[str, Any] = {"data_digest": dataset.digest(), **recipe(cfg), "teacher": cfg.teacher}
    if outliers:
        evaluated["outliers_digest"] = outliers.digest()
    evaluated[_CODE] = _code_digest()
    path = folder / RECIPE_FILE
    if replace_other and not _continues(folder, evaluated, splits):
        for part in (*folder.glob("seed-*"), folder / STAGE_OUTPUTS_FOLDER):
            shutil.rmtree(part, ignore_errors=True)
    if path.is_file() and any(folder.glob(f"seed-*/fold-*/{RUN_FILE}")):
        recorded = json.loads(path.read_text(encoding="utf-8"))
        if differing := differences({**recorded, _CODE: evaluated[_CODE]}, evaluated):
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


def _continues(folder: Path, evaluated: Mapping[str, Any], splits: Mapping[int, Sequence[Split]]) -> bool:
    """Return whether the finished folds in a folder have this recipe, these images, this code and these splits."""
    try:
        recorded = json.loads((folder / RECIPE_FILE).read_text(encoding="utf-8"))
        finished = {path.parent: Run.read(path.parent).split for path in folder.glob(f"seed-*/fold-*/{RUN_FILE}")}
    except (OSError, ValueError, RunError):
        return False
    wanted = {_fold_folder(folder, seed, number): parts for seed in splits for number, parts in enumerate(splits[seed])}
    return not differences(recorded, evaluated) and finished.items() <= wanted.items()


def _code_digest() -> str:
    """Compute the SHA-256 of the modules that train, export and read images."""
    total = hashlib.sha256()
    for package in (vinegrape_training, vinegrape_handler):
        folder = Path(str(package.__file__)).parent
        modules = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.py"))
        total.update(files_digest(folder, modules).encode())
    return total.hexdigest()


def _has_files(folder: Path, *files: str) -> bool:
    return all((folder / file).is_file() for file in files)


def _fold_config(cfg: DictConfig, folder: Path, seed: int, number: int) -> DictConfig:
    fold_cfg = cfg.copy()
    fold_cfg.seed, fold_cfg.run_dir = seed, str(folder)
    if not cfg.stage_outputs:
        fold_cfg.stage_outputs = str(folder.parents[1] / STAGE_OUTPUTS_FOLDER)
    if cfg.teacher:
        fold_cfg.teacher = str(_fold_folder(Path(cfg.teacher), seed, number))
    return fold_cfg


def _test_int8(run: Run, dataset: Dataset, outliers: Outliers | None) -> None:
    """Quantise a fold's network as an export does, and classify the fold's test images with the int8 file.

    If there are outliers, it classifies all of them; `_collect_outliers` uses those that the fold has not seen.
    """
    images = load_dataset(dataset, run.input_size, run.interpolation)
    graph = graph_of(run, temperature=1.0)
    weights = run.folder / WEIGHTS_FOLDER
    weights.mkdir(exist_ok=True)
    write_weights(graph, run, dataset, images, weights)
    network = load_network(weights, "onnx_int8", WorkerSettings(), "cpu")
    if outliers:
        pixels = load_outliers(outliers, run.input_size, run.interpolation)[..., :3]
        with atomic_write(run.folder / OUTLIERS_FILE) as path:
            np.savez(path, ood_scores=_ood_scores(parity.outputs(network, pixels, 1)).numpy())
    outputs = parity.outputs(network, images[dataset.indices_of(run.split.test)], 1)
    log_probabilities = torch.from_numpy(np.log(np.maximum(outputs.probabilities, np.finfo(np.float32).tiny)))
    labels = torch.from_numpy(dataset.labels_of(run.split.test))
    scores = _ood_scores(outputs) if outliers else None
    Evaluation(log_probabilities, labels, scores).write(run.folder / INT8_FILE)


def _ood_scores(outputs: Outputs) -> Tensor:
    """Return the OOD scores [N] of a network that was trained with outliers."""
    assert outputs.ood_scores is not None  # noqa: S101 - its graph computes them
    return torch.from_numpy(outputs.ood_scores)


def _collect(folder: Path, dataset: Dataset, splits: Mapping[int, Sequence[Split]]) -> OutOfFold:
    """Collect the predictions of all folds; int8 predictions only if every fold has them."""
    shape = (len(splits), len(dataset.paths))
    fold_numbers = torch.empty(shape, dtype=torch.int64)
    logits, int8 = (torch.empty(*shape, len(dataset.classes)) for _ in range(2))
    scores = torch.full(shape, torch.nan)
    quantised = True
    for row, (seed, folds_of_seed) in enumerate(splits.items()):
        for number, parts in enumerate(folds_of_seed):
            fold, tested = _fold_folder(folder, seed, number), dataset.indices_of(parts.test)
            fold_numbers[row, tested] = number
            logits[row, tested] = Evaluation.read(fold / TEST_FILE).logits
            quantised = quantised and _has_files(fold, INT8_FILE)
            if quantised:
                evaluation = Evaluation.read(fold / INT8_FILE)
                int8[row, tested] = evaluation.logits
                if evaluation.ood_scores is not None:
                    scores[row, tested] = evaluation.ood_scores
    return OutOfFold(
        tuple(splits),
        dataset.paths,
        torch.tensor(dataset.labels),
        fold_numbers,
        logits,
        int8 if quantised else None,
        scores if quantised and not scores.isnan().any() else None,
    )


def _collect_outliers(
    folder: Path, outliers: Outliers, held_out: Mapping[int, Sequence[OutlierSplit]]
) -> OutlierScores:
    """Collect the OOD scores of outliers from the folds that have not seen their source, or their species."""
    shape = (len(held_out), len(outliers.images))
    fold_numbers = np.empty(shape, np.int64)
    new_source, new_species = (np.empty(shape, np.float32) for _ in range(2))
    index = {path: number for number, path in enumerate(outliers.paths)}
    for row, (seed, splits) in enumerate(held_out.items()):
        for number, split in enumerate(splits):
            with np.load(_fold_folder(folder, seed, number) / OUTLIERS_FILE) as arrays:
                scores = arrays["ood_scores"]
            of_source, of_species = ([index[path] for path in part] for part in (split.new_source, split.new_species))
            fold_numbers[row, of_source] = number
            new_source[row, of_source], new_species[row, of_species] = scores[of_source], scores[of_species]
    return OutlierScores(outliers.paths, outliers.kinds, fold_numbers, new_source, new_species)


def _reference(folder: Path, report: Report, predictions: OutOfFold, dataset: Dataset) -> Reference:
    """Return the reference distributions of the predictions and of the images."""
    run = Run.read(_fold_folder(folder, report.seeds[0], 0))
    images = load_dataset(dataset, run.input_size, run.interpolation)
    # what is served are the int8 files
    served = predictions.logits if predictions.int8 is None else predictions.int8
    scores = None if predictions.ood_scores is None else predictions.ood_scores.numpy()
    return make_reference(report.classes, predictions.probabilities(served), scores, images)


def _draw(report: Report, predictions: OutOfFold, folder: Path) -> None:
    draw_confusion(np.array(report.confusion), report.classes, folder / "confusion.png")
    labels = predictions.labels.repeat(len(predictions.seeds)).numpy()
    before = predictions.logits.double().softmax(dim=2).numpy().reshape(-1, len(report.classes))
    after = predictions.probabilities(predictions.logits).reshape(-1, len(report.classes))
    draw_reliability({"without temperature": before, "with temperature": after}, labels, folder / "reliability.png")
    if predictions.ood_scores is None or predictions.outliers is None or predictions.int8 is None:
        draw_risk_coverage(after, labels, folder / "risk_coverage.png")
        return
    served = predictions.probabilities(predictions.int8).reshape(after.shape)  # the files that compute the scores
    scores = predictions.ood_scores.numpy()
    known = scores <= predictions.thresholds()
    draw_risk_coverage(served, labels, folder / "risk_coverage.png", scores.ravel(), known.ravel())
