"""Images to weights: `vinegrape train`. `main` is the command line, `train` does the work."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path

import hydra
import torch
from lightning import seed_everything
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from vinegrape_handler.errors import SettingError, VinegrapeError
from vinegrape_handler.memory import retain_freed_memory
from vinegrape_training.data.augmentation import Augmentation
from vinegrape_training.data.datamodule import LeavesDataModule
from vinegrape_training.data.dataset import Dataset, Split, load_dataset, scan, split
from vinegrape_training.evaluation.calibration import fit_temperature
from vinegrape_training.evaluation.plots import draw_confusion, draw_curves
from vinegrape_training.evaluation.predictions import Evaluation
from vinegrape_training.evaluation.report import Report
from vinegrape_training.fit.config import CONFIG_FOLDER, CONFIG_NAME, check, data_dir
from vinegrape_training.fit.lightning_module import ClassifierModule, Teacher
from vinegrape_training.fit.recipe import check_evaluated
from vinegrape_training.fit.run import (
    CONFIG_FILE,
    RUN_FILE,
    TEST_FILE,
    Run,
    git_state,
    library_versions,
    write_weights,
)
from vinegrape_training.fit.trainer import evaluate, fit
from vinegrape_training.models.factory import create_model, preprocessing


@dataclass(frozen=True)
class TrainResult:
    """What a training made.

    Attributes:
        run: all facts on it, as in `run.json`; its folder and metrics among them.
        model: the network with the weights that were kept, in eval mode.
        history: each epoch's figures by name, such as "validation/accuracy".
        test: the network's answers to the test images, None if there are none.
    """

    run: Run
    model: nn.Module
    history: list[dict[str, float]]
    test: Evaluation | None


def train(cfg: DictConfig, parts: Split | None = None) -> TrainResult:
    """Train, choose the best checkpoint, fit the temperature, measure the test images once, write the run's folder.

    Without validation images, the last epoch's weights stay, and the temperature is the evaluation's, or 1. Of several
    processes that train together, the first alone writes; all need its folder to read the checkpoint.

    Args:
        cfg: `conf/train.yaml`, composed.
        parts: which images train, validate and test, instead of those that the configuration deals.

    Raises:
        VinegrapeError: a folder, an image, weights or a setting that training cannot work with.
    """
    folder_of_images = data_dir(cfg)
    commit, dirty = git_state()  # now, while the files are what was imported
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # else each fold prints what others sell
    # Lightning's own use of torch, once a step, and stages that are frozen on purpose
    for message in (r".*treespec, LeafSpec.*", r".*module\(s\) in eval mode at the start of training.*"):
        warnings.filterwarnings("ignore", message=message)
    cfg = cfg.copy()
    OmegaConf.resolve(cfg)  # the time in run_dir stands still from here
    check(cfg)
    augmentation = Augmentation(**cfg.augmentation)
    dataset = scan(folder_of_images)
    report = Report.read(Path(cfg.evaluation)) if cfg.evaluation else None
    parts = parts or _parts(cfg, dataset, report)
    folder = Path(cfg.run_dir)
    _begin(folder, cfg)
    seed_everything(cfg.seed, workers=True, verbose=False)
    retain_freed_memory("training")
    # Determinism also fills new tensors, in case somebody reads them before they are written: a sixth of a step's time
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]

    weights = str(cfg.weights)
    model = create_model(cfg.model.architecture, len(dataset.classes), weights, cfg.input_size)
    wanted = preprocessing(model, cfg.model.interpolation)
    images = load_dataset(dataset, cfg.input_size, wanted.interpolation)
    data = LeavesDataModule(dataset, images, parts, augmentation, cfg.data.batch_size)
    teacher = _teacher(Path(cfg.teacher), parts) if cfg.teacher else None
    classifier = ClassifierModule(
        model, len(dataset.classes), wanted, **cfg.optimizer, frozen_stages=cfg.model.frozen_stages, teacher=teacher
    )
    history = fit(cfg, folder, classifier, data)

    temperature, test, figures = _measure(classifier, data, dataset, report)
    counts = {f"{part}_images": float(len(paths)) for part, paths in dataclasses.asdict(parts).items()}
    run = Run(
        folder=folder,
        architecture=cfg.model.architecture,
        classes=dataset.classes,
        input_size=cfg.input_size,
        interpolation=wanted.interpolation,
        mean=wanted.mean,
        std=wanted.std,
        temperature=temperature,
        data_dir=dataset.folder,
        data_digest=dataset.digest(),
        split=parts,
        metrics={**counts, "images": float(len(dataset.paths)), "epochs": float(len(history)), **figures},
        libraries=library_versions(),
        git_commit=commit,
        git_dirty=dirty,
        seed=cfg.seed,
    )
    result = TrainResult(run, model.eval(), history, test)
    _write(result)
    return result


def _measure(
    classifier: ClassifierModule, data: LeavesDataModule, dataset: Dataset, report: Report | None
) -> tuple[float, Evaluation | None, dict[str, float]]:
    """The temperature, the answers to the test images, and the figures: of this training, or what the report found."""
    temperature, test, figures = 1.0, None, {}
    if len(data.validation):
        validation = evaluate(classifier, data.validation)
        temperature = fit_temperature(validation.logits, validation.labels)
        figures["validation_accuracy"] = validation.accuracy
    if len(data.test):
        test = evaluate(classifier, data.test)  # for the first and only time
        figures |= test.metrics(dataset.classes, temperature)
    if report:
        temperature = report.temperature
        figures |= report.metrics()
    return temperature, test, figures


def _parts(cfg: DictConfig, dataset: Dataset, report: Report | None) -> Split:
    """Which images train: all that an evaluation has spoken for, or what the fractions leave."""
    if report is None:
        return split(dataset, cfg.seed, cfg.data.validation_fraction, cfg.data.test_fraction)
    check_evaluated(report, cfg, dataset)
    return Split(dataset.paths, (), ())


def _teacher(folder: Path, parts: Split) -> Teacher:
    """A finished run's network as the teacher of images that it may know."""
    run = Run.read(folder)
    if leaked := set(run.split.train) & {*parts.validation, *parts.test}:
        raise SettingError(f"teacher={folder} was trained on {len(leaked)} of the images that are to measure.")
    network = run.load_model().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    mean, std = (255 * torch.tensor(values).view(1, 3, 1, 1) for values in (run.mean, run.std))

    def teach(images: Tensor) -> Tensor:
        with torch.no_grad():
            pixels = images.contiguous(memory_format=torch.channels_last)
            logits = network.to(images.device)((pixels - mean.to(images)) / std.to(images))
            return logits.float().softmax(dim=1)  # type: ignore[no-any-return]

    return teach


@rank_zero_only
def _begin(folder: Path, cfg: DictConfig) -> None:
    """Make the run's folder, and say in it what is about to run."""
    if (folder / RUN_FILE).exists():
        raise SettingError(f"{folder} already holds a finished run; give another folder, run_dir=FOLDER.")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_text(OmegaConf.to_yaml(cfg), encoding="utf-8")


@rank_zero_only
def _write(result: TrainResult) -> None:
    """Write what a finished run leaves; `run.json` last, as it says that the run is finished."""
    folder = result.run.folder
    write_weights(result.model, folder)
    draw_curves(result.history, folder / "curves.png")
    if result.test:
        result.test.write(folder / TEST_FILE)
        draw_confusion(result.test.confusion(), result.run.classes, folder / "confusion.png")
    result.run.write()


@hydra.main(version_base="1.3", config_path=str(CONFIG_FOLDER), config_name=CONFIG_NAME)
def main(cfg: DictConfig) -> None:
    """Train from the command line's overrides; one line says what is wrong, and the exit status is 1."""
    try:
        result = train(cfg)
    except VinegrapeError as error:
        raise SystemExit(f"vinegrape train: {error}") from error
    _report(result)


@rank_zero_only
def _report(result: TrainResult) -> None:
    metrics = result.run.metrics
    figures = [f"{result.run.folder}: {metrics['epochs']:.0f} epochs"]
    if "validation_accuracy" in metrics:
        figures.append(f"validation accuracy {metrics['validation_accuracy']:.1%}")
    if "test_accuracy" in metrics:
        interval = f"{metrics['test_accuracy_low_95']:.1%} to {metrics['test_accuracy_high_95']:.1%}"
        figures.append(f"test accuracy {metrics['test_accuracy']:.1%} ({interval})")
    print(", ".join(figures))  # noqa: T201


if __name__ == "__main__":
    main()
