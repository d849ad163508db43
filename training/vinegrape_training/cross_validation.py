"""A recipe measured on images that it was not trained on, all of them: `vinegrape evaluate`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from PIL import Image
from rich.console import Console
from vinegrape_handler import backends
from vinegrape_handler.errors import SettingError
from vinegrape_handler.resize import Interpolation
from vinegrape_handler.settings import WorkerSettings

from vinegrape_training import gate
from vinegrape_training.augmentation import Augmentation, augment
from vinegrape_training.dataset import Dataset, Split, folds, load_dataset, scan
from vinegrape_training.evaluation import Evaluation
from vinegrape_training.export import write_weights
from vinegrape_training.figures import draw_confusion, draw_reliability, draw_risk_coverage
from vinegrape_training.graph import ServingGraph
from vinegrape_training.report import OUT_OF_FOLD_FILE, OutOfFold, Report, differences, recipe
from vinegrape_training.run import RUN_FILE, TEST_FILE, Run
from vinegrape_training.train import train

RECIPE_FILE = "recipe.json"
_WEIGHTS_FOLDER = "weights"  # in a fold's folder: the files that would be served
_INT8_FILE = "test_int8.npz"
_LEAKY_COPIES = 4


@dataclass(frozen=True)
class Deals:
    """How often the images are dealt into how many parts, each of which tests what the others train."""

    seeds: tuple[int, ...]
    folds: int

    def __post_init__(self) -> None:
        if self.folds < 2 or not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise SettingError(f"Cross-validation needs 2 folds or more and seeds that differ; this is {self}.")


def cross_validate(cfg: DictConfig, folder: Path, deals: Deals, *, int8: bool = True, leaky: bool = False) -> Report:
    """Train and test once for each fold of each seed, and write what came of it.

    A fold that stands finished in `folder` is kept; one that was cut off is done again.

    Args:
        cfg: `conf/train.yaml`, composed; the recipe. Its seed and run_dir are each fold's own, and its teacher, if it
            has one, is the folder of an evaluation: each fold learns from that fold's network.
        folder: holds the folds (`seed-1/fold-0`, ...), `evaluation.json`, the answers and the plots.
        deals: of the images.
        int8: whether each fold's network is quantised too, on its own training images, and tested.
        leaky: whether the network is also tested as it should not be, on augmented copies of its training images.

    Raises:
        SettingError: `folder` holds folds of another recipe or of other images.
        VinegrapeError: whatever `train` cannot work with.
    """
    dataset = scan(Path(cfg.data.dir).absolute())
    _begin(folder, cfg, dataset)
    logits, quantised, fold_of = [], [], []
    for seed in deals.seeds:
        splits = folds(dataset, seed, deals.folds)
        for number, parts in enumerate(splits):
            fold = _fold_folder(folder, seed, number)
            if not _finished(fold, int8=int8):
                _announce(f"Seed {seed}, fold {number + 1} of {deals.folds}")
                _fold(cfg, fold, seed, parts, int8=int8)
        folders = [_fold_folder(folder, seed, number) for number in range(deals.folds)]
        logits.append(_collect(dataset, splits, folders, TEST_FILE))
        quantised.append(_collect(dataset, splits, folders, _INT8_FILE) if int8 else None)
        fold_of.append(_fold_of(dataset, splits))
    made = OutOfFold(
        deals.seeds,
        dataset.paths,
        torch.tensor(dataset.labels),
        torch.stack(fold_of),
        torch.stack(logits),
        torch.stack([each for each in quantised if each is not None]) if int8 else None,
    )
    claimed = _leaky(cfg, folder, dataset, deals) if leaky else None
    report = Report.of(made, dataset.classes, dataset.digest(), recipe(cfg), claimed)
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


def _begin(folder: Path, cfg: DictConfig, dataset: Dataset) -> None:
    """Say in the folder what is evaluated, or make sure that it is the same."""
    wanted: dict[str, Any] = {"data_digest": dataset.digest(), **recipe(cfg)}
    path = folder / RECIPE_FILE
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
    elif differing := differences(json.loads(path.read_text(encoding="utf-8")), wanted):
        raise SettingError(f"{folder} holds another recipe ({'; '.join(differing)}); give another folder.")


def _finished(folder: Path, *, int8: bool) -> bool:
    return (folder / RUN_FILE).is_file() and (not int8 or (folder / _INT8_FILE).is_file())


def _fold(cfg: DictConfig, folder: Path, seed: int, parts: Split, *, int8: bool) -> None:
    """Train and test a fold, as far as that is not done."""
    if not (folder / RUN_FILE).is_file():
        shutil.rmtree(folder, ignore_errors=True)
        own = cfg.copy()
        own.seed, own.run_dir = seed, str(folder)
        if cfg.teacher:
            own.teacher = str(_fold_folder(Path(cfg.teacher), seed, int(folder.name.rpartition("-")[2])))
        train(own, parts)
    if int8 and not (folder / _INT8_FILE).is_file():
        _test_int8(Run.read(folder))


def _test_int8(run: Run) -> None:
    """Quantise a fold's network as an export does, and let the file that would be served answer the fold's test."""
    dataset = scan(run.data_dir)
    images = load_dataset(dataset, run.input_size, run.interpolation)
    graph = ServingGraph(run.load_model(), run.mean, run.std, temperature=1.0).eval()
    weights = run.folder / _WEIGHTS_FOLDER
    weights.mkdir(exist_ok=True)
    write_weights(graph, run, dataset, images, weights)
    network = backends.load(weights, "onnx_int8", WorkerSettings(), "cpu")
    probabilities = gate.run(network, images[dataset.indices_of(run.split.test)], 1)
    logs = torch.from_numpy(np.log(np.maximum(probabilities, np.finfo(np.float32).tiny)))
    Evaluation(logs, torch.from_numpy(dataset.labels_of(run.split.test))).write(run.folder / _INT8_FILE)


def _collect(dataset: Dataset, splits: Sequence[Split], folders: Sequence[Path], file: str) -> torch.Tensor:
    """Each image's logits, from the fold that tested it: [N, classes]."""
    logits = torch.empty(len(dataset.paths), len(dataset.classes))
    for parts, folder in zip(splits, folders, strict=True):
        logits[dataset.indices_of(parts.test)] = Evaluation.read(folder / file).logits
    return logits


def _fold_of(dataset: Dataset, splits: Sequence[Split]) -> torch.Tensor:
    fold_of = torch.empty(len(dataset.paths), dtype=torch.int64)
    for number, parts in enumerate(splits):
        fold_of[dataset.indices_of(parts.test)] = number
    return fold_of


def _draw(report: Report, made: OutOfFold, folder: Path) -> None:
    confusion = np.array(report.confusion)
    draw_confusion(confusion, report.classes, folder / "confusion.png")
    labels = made.labels.repeat(len(made.seeds)).numpy()
    before = made.logits.double().softmax(dim=2).numpy().reshape(-1, len(report.classes))
    after = made.probabilities(made.logits).reshape(-1, len(report.classes))
    draw_reliability({"as trained": before, "with the temperature": after}, labels, folder / "reliability.png")
    draw_risk_coverage(after, labels, folder / "risk_coverage.png")


def _leaky(cfg: DictConfig, folder: Path, dataset: Dataset, deals: Deals) -> dict[str, float]:
    """Test one fold as it should not be: the images are enlarged by augmented copies first, and dealt then."""
    copies_dir, run_dir = folder / "leaky" / "images", folder / "leaky" / "run"
    if not (run_dir / RUN_FILE).is_file():
        _announce("One fold dealt after the augmentation, as it should not be")
        shutil.rmtree(folder / "leaky", ignore_errors=True)
        images = load_dataset(dataset, cfg.input_size, _interpolation(folder, deals))
        _write_copies(dataset, images, Augmentation(**cfg.augmentation), copies_dir)
        own = cfg.copy()
        own.data.dir, own.run_dir, own.seed, own.teacher = str(copies_dir), str(run_dir), deals.seeds[0], None
        # as many steps as the honest folds take
        own.trainer.max_epochs = max(1, round(cfg.trainer.max_epochs / (1 + _LEAKY_COPIES)))
        train(own, folds(scan(copies_dir), deals.seeds[0], deals.folds)[0])
    run = Run.read(run_dir)
    return {"accuracy": run.metrics["test_accuracy"], "images": run.metrics["test_images"]}


def _interpolation(folder: Path, deals: Deals) -> Interpolation:
    return Run.read(_fold_folder(folder, deals.seeds[0], 0)).interpolation


def _write_copies(dataset: Dataset, images: NDArray[np.uint8], augmentation: Augmentation, folder: Path) -> None:
    """Write each image and its augmented copies as PNG files, a folder a class."""
    torch.manual_seed(0)
    for path, image in zip(dataset.paths, images, strict=True):
        batch = torch.from_numpy(image.copy()).permute(2, 0, 1).repeat(_LEAKY_COPIES, 1, 1, 1)
        changed = augment(batch, augmentation).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        for number, pixels in enumerate([image, *changed]):
            Image.fromarray(pixels).save(target.with_name(f"{target.stem}-{number}.png"))
