"""One training run, from images to weights: `vinegrape train`.

`train` does the work and `main` is the command line. In a distributed run, Lightning and torchrun run this file as a
script in further processes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import hydra
import numpy as np
import torch
from lightning import seed_everything
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from torch import Tensor, nn

from vinegrape_handler.errors import SettingError, VinegrapeError
from vinegrape_handler.metadata import Interpolation
from vinegrape_training.checks import read_group
from vinegrape_training.data.augmentation.settings import Augmentation
from vinegrape_training.data.datamodule import AugmentedDataModule, LeavesDataModule, OutlierSampler
from vinegrape_training.data.dataset import Dataset, Split, load_dataset, scan, split
from vinegrape_training.data.opacity import load_opacity
from vinegrape_training.data.outliers import Outliers, OutlierSplit, load_outliers, scan_outliers
from vinegrape_training.data.shards import ShardedDataset, read_index
from vinegrape_training.data.streaming import ShardsDataModule
from vinegrape_training.evaluation.calibration import fit_temperature
from vinegrape_training.evaluation.plots import draw_confusion, draw_curves
from vinegrape_training.evaluation.predictions import Evaluation
from vinegrape_training.evaluation.report import Report
from vinegrape_training.evaluation.robustness import metrics_in
from vinegrape_training.fit.artifacts import log_training
from vinegrape_training.fit.config import (
    CONFIG_FOLDER,
    CONFIG_NAME,
    check,
    data_location,
    group_values,
    optimizer_settings,
    outlier_settings,
    stream_settings,
    trainer_settings,
)
from vinegrape_training.fit.lightning_module import ClassifierModule, Teacher
from vinegrape_training.fit.logger import make_logger
from vinegrape_training.fit.machines import find_machine
from vinegrape_training.fit.process import prepare_process
from vinegrape_training.fit.recipe import check_evaluated
from vinegrape_training.fit.resume import last_checkpoint, last_epoch, other_settings, remove_last_checkpoint
from vinegrape_training.fit.run import (
    CONFIG_FILE,
    RUN_FILE,
    TEST_FILE,
    Run,
    git_state,
    library_versions,
    write_weights,
)
from vinegrape_training.fit.settings import OutlierSettings
from vinegrape_training.fit.stage_outputs import StageOutputsModule, compute
from vinegrape_training.fit.trainer import evaluate, fit
from vinegrape_training.models.factory import create_model, preprocessing
from vinegrape_training.models.normalised import Normalised
from vinegrape_training.models.outputs import EVEN_ODDS
from vinegrape_training.models.stages import are_removable, weights_digest


@dataclass(frozen=True)
class TrainResult:
    """The result of a training.

    Attributes:
        run: facts of the run as in `run.json`, including its folder and metrics.
        model: network with the kept weights, in eval mode.
        history: metrics of each epoch by name, such as "validation/accuracy".
        test: predictions on the test images; None without test images.
    """

    run: Run
    model: nn.Module
    history: list[dict[str, float]]
    test: Evaluation | None


def train(cfg: DictConfig, parts: Split | None = None, outlier_parts: OutlierSplit | None = None) -> TrainResult:
    """Train a network, choose the best checkpoint, fit the temperature, test once, and write the run's folder.

    Without validation images, the last epoch's weights are kept, and the temperature is the evaluation's, or 1. If
    several processes train together, all read the images, and only the first writes to the run's folder or reads it.

    A run that was interrupted is continued after its last complete epoch if `run_dir` and all other settings are the
    same. It then ends with the weights of an uninterrupted run.

    Args:
        cfg: `conf/train.yaml`, composed.
        parts: training, validation and test images; default: a split by the configured fractions.
        outlier_parts: the outliers to train with; default: all in `outliers.dir`.

    Raises:
        VinegrapeError: a folder, image, weights file or setting is invalid; the message names it.
    """
    location = data_location(cfg)
    commit, dirty = git_state()  # at the start, before files can differ from the imported code
    cfg = cfg.copy()
    OmegaConf.resolve(cfg)  # fixes the time in run_dir
    check(cfg)
    augmentation = read_group(Augmentation, "augmentation", group_values(cfg, "augmentation"))
    dataset = read_index(location) if cfg.data.streamed else scan(Path(location))
    report = Report.read(Path(cfg.evaluation)) if cfg.evaluation else None
    parts = parts or _parts(cfg, dataset, report)
    folder = Path(cfg.run_dir)
    if find_machine(cfg.trainer.num_nodes, cfg.trainer.devices).is_first_process:
        _begin(folder, cfg)
    seed_everything(cfg.seed, workers=True, verbose=False)

    outliers = scan_outliers(Path(cfg.outliers.dir)) if cfg.outliers.dir else None
    outputs = len(dataset.classes) + bool(outliers)
    model = create_model(cfg.model.architecture, outputs, str(cfg.weights), cfg.input_size)
    model_preprocessing = preprocessing(model, cfg.model.interpolation)
    side, interpolation = cfg.input_size, model_preprocessing.interpolation
    sampler = _sampler(outliers, outlier_parts, side, interpolation, outlier_settings(cfg)) if outliers else None
    data = _data(cfg, dataset, parts, (side, interpolation), augmentation, sampler)
    teacher = _teacher(Path(cfg.teacher), parts) if cfg.teacher else None
    classifier = ClassifierModule(
        model,
        model_preprocessing,
        optimizer_settings(cfg),
        frozen_stages=cfg.model.frozen_stages,
        teacher=teacher,
        outlier_weight=cfg.outliers.weight if outliers else None,
    )
    shared = _stage_outputs(cfg, classifier, augmentation, dataset, outliers, parts, outlier_parts)
    data_digest = dataset.digest()
    inputs = _digest_of_inputs(data_digest, outliers, parts, outlier_parts)
    logger = make_logger(cfg, folder)
    if shared is None:
        history = fit(cfg, folder, classifier, data, inputs, logger)
    else:
        with classifier.without_frozen_stages():
            history = fit(cfg, folder, classifier, shared, inputs, logger)

    temperature, threshold, test, metrics = _measure(classifier, data, dataset, report)
    if report:
        metrics |= metrics_in(Path(cfg.evaluation))
    counts = {f"{part}_images": float(len(paths)) for part, paths in dataclasses.asdict(parts).items()}
    run = Run(
        folder=folder,
        architecture=cfg.model.architecture,
        classes=dataset.classes,
        input_size=cfg.input_size,
        interpolation=model_preprocessing.interpolation,
        mean=model_preprocessing.mean,
        std=model_preprocessing.std,
        temperature=temperature,
        has_ood_score=outliers is not None,
        ood_threshold=threshold,
        data_dir=dataset.folder,
        data_digest=data_digest,
        split=parts,
        metrics={**counts, "images": float(len(dataset.paths)), "epochs": float(len(history)), **metrics},
        libraries=library_versions(),
        git_commit=commit,
        git_dirty=dirty,
        seed=cfg.seed,
        reference=report.reference if report else None,
    )
    result = TrainResult(run, model.eval(), history, test)
    _write(result)
    log_training(logger, run, dataset)
    return result


def _data(
    cfg: DictConfig,
    dataset: Dataset,
    parts: Split,
    size: tuple[int, Interpolation],
    augmentation: Augmentation,
    outliers: OutlierSampler | None,
) -> AugmentedDataModule:
    """Decode the images into memory, or prepare to read them from shards."""
    batch_size = cfg.data.batch_size
    if isinstance(dataset, ShardedDataset):
        settings = stream_settings(cfg)
        return ShardsDataModule(dataset, parts, size, augmentation, batch_size, settings, cfg.seed, outliers)
    images, opacity = load_dataset(dataset, *size), load_opacity(dataset, *size)
    return LeavesDataModule(dataset, images, opacity, parts, augmentation, batch_size, outliers)


def _sampler(
    outliers: Outliers, parts: OutlierSplit | None, side: int, interpolation: Interpolation, settings: OutlierSettings
) -> OutlierSampler:
    """Prepare the outliers that the network is trained with."""
    images, kinds = load_outliers(outliers, side, interpolation), outliers.kinds
    if parts:
        chosen = set(parts.train)
        indices = [index for index, path in enumerate(outliers.paths) if path in chosen]
        images, kinds = images[indices], tuple(kinds[index] for index in indices)
    return OutlierSampler(images, kinds, settings.per_batch)


def _stage_outputs(
    cfg: DictConfig,
    classifier: ClassifierModule,
    augmentation: Augmentation,
    dataset: Dataset,
    outliers: Outliers | None,
    parts: Split,
    outlier_parts: OutlierSplit | None,
) -> StageOutputsModule | None:
    """Return training batches from the outputs of the frozen stages; None if they are not shared or cannot be."""
    stages, side = cfg.model.frozen_stages, cfg.input_size
    network = classifier.normalised
    needs_images = cfg.teacher or cfg.optimizer.mixup or parts.validation
    if not cfg.stage_outputs or not stages or needs_images or not are_removable(network.network, stages, side):
        return None
    interpolation = preprocessing(network.network, cfg.model.interpolation).interpolation
    pixels = np.concatenate(
        [load_dataset(dataset, side, interpolation), load_opacity(dataset, side, interpolation)[..., np.newaxis]],
        axis=3,
    )
    versions = trainer_settings(cfg).max_epochs
    key = {
        "architecture": cfg.model.architecture,
        "weights": weights_digest(network.network, stages),
        "input_size": side,
        "interpolation": interpolation,
        "augmentation": dataclasses.asdict(augmentation),
        "versions": versions,
        "images": dataset.digest(),
        "outliers": outliers.digest() if outliers else None,
    }
    others = load_outliers(outliers, side, interpolation) if outliers else None
    outputs = compute(Path(cfg.stage_outputs), key, network, stages, pixels, others, augmentation, versions)
    chosen = set(outlier_parts.train) if outlier_parts else None
    used = [i for i, path in enumerate(outliers.paths) if chosen is None or path in chosen] if outliers else []
    return StageOutputsModule(
        outputs,
        dataset.indices_of(parts.train),
        dataset.labels_of(parts.train).tolist(),
        cfg.data.batch_size,
        used,
        [outliers.kinds[index] for index in used] if outliers else [],
        cfg.outliers.per_batch,
    )


def _digest_of_inputs(
    data_digest: str, outliers: Outliers | None, parts: Split, outlier_parts: OutlierSplit | None
) -> str:
    """Compute a digest of all images and of their split."""
    inputs = {
        "images": data_digest,
        "outliers": outliers.digest() if outliers else None,
        "parts": dataclasses.asdict(parts),
        "outlier_parts": dataclasses.asdict(outlier_parts) if outlier_parts else None,
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _measure(
    classifier: ClassifierModule, data: AugmentedDataModule, dataset: Dataset, report: Report | None
) -> tuple[float, float | None, Evaluation | None, dict[str, float]]:
    """Return temperature, OOD threshold, predictions on the test images, and metrics of this training or the report."""
    temperature, test, metrics = 1.0, None, {}
    threshold = None if classifier.outlier_weight is None else EVEN_ODDS
    if len(data.validation):
        validation = evaluate(classifier, data.evaluation_batches("validation"))
        temperature = fit_temperature(validation.logits, validation.labels)
        metrics["validation_accuracy"] = validation.accuracy
    if len(data.test):
        test = evaluate(classifier, data.evaluation_batches("test"))  # the only use of the test images
        metrics |= test.metrics(dataset.classes, temperature)
    if report:
        temperature, threshold = report.temperature, report.ood_threshold
        metrics |= report.metrics()
    return temperature, threshold, test, metrics


def _parts(cfg: DictConfig, dataset: Dataset, report: Report | None) -> Split:
    """Split by the configured fractions, or train on all images if there is an evaluation of this recipe."""
    if report is None:
        return split(dataset, cfg.seed, cfg.data.validation_fraction, cfg.data.test_fraction)
    check_evaluated(report, cfg, dataset)
    return Split(dataset.paths, (), ())


def _teacher(folder: Path, parts: Split) -> Teacher:
    """Make the network of a finished run a teacher. It must not have been trained on validation or test images."""
    run = Run.read(folder)
    if leaked := set(run.split.train) & {*parts.validation, *parts.test}:
        raise SettingError(
            f"teacher={folder} was trained on {len(leaked)} of the validation and test images. "
            "Give a run that was trained on the same split."
        )
    model = run.load_model().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network = Normalised(model, run.mean, run.std)

    def predict(images: Tensor) -> Tensor:
        with torch.no_grad():
            logits = network.to(images.device)(images.contiguous(memory_format=torch.channels_last))
            return logits.float().softmax(dim=1)  # type: ignore[no-any-return]

    return predict


def _begin(folder: Path, cfg: DictConfig) -> None:
    """Create the run's folder and write the configuration to it, or check that an interrupted run can continue."""
    if (folder / RUN_FILE).exists():
        raise SettingError(f"{folder} already holds a finished run; give another folder, run_dir=FOLDER.")
    checkpoint = last_checkpoint(folder)
    if checkpoint.is_file():
        if differing := other_settings(folder, cfg):
            raise SettingError(
                f"{folder} holds an unfinished run with other settings: {'; '.join(differing)}. "
                "Continue it with its own settings, or give another folder, run_dir=FOLDER."
            )
        line = f"{folder}: continuing after epoch {last_epoch(checkpoint) + 1} of {cfg.trainer.max_epochs}"
        Console(stderr=True).print(line, highlight=False, soft_wrap=True)
        return
    shutil.rmtree(checkpoint.parent, ignore_errors=True)  # of a run without a complete epoch
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_text(OmegaConf.to_yaml(cfg), encoding="utf-8")


@rank_zero_only
def _write(result: TrainResult) -> None:
    """Write the files of a finished run. `run.json` is the last, because it marks the run as finished."""
    folder = result.run.folder
    write_weights(result.model, folder)
    draw_curves(result.history, folder / "curves.png")
    if result.test:
        result.test.write(folder / TEST_FILE)
        draw_confusion(result.test.confusion(), result.run.classes, folder / "confusion.png")
    result.run.write()
    remove_last_checkpoint(folder)


@hydra.main(version_base="1.3", config_path=str(CONFIG_FOLDER), config_name=CONFIG_NAME)
def main(cfg: DictConfig) -> None:
    """Train with the command line's overrides. An invalid setting is reported as one line, with exit code 1."""
    prepare_process()
    try:
        result = train(cfg)
    except VinegrapeError as error:
        raise SystemExit(f"vinegrape train: {error}") from error
    _report(result)


@rank_zero_only
def _report(result: TrainResult) -> None:
    metrics = result.run.metrics
    parts = [f"{result.run.folder}: {metrics['epochs']:.0f} epochs"]
    if "validation_accuracy" in metrics:
        parts.append(f"validation accuracy {metrics['validation_accuracy']:.1%}")
    if "test_accuracy" in metrics:
        interval = f"{metrics['test_accuracy_low_95']:.1%} to {metrics['test_accuracy_high_95']:.1%}"
        parts.append(f"test accuracy {metrics['test_accuracy']:.1%} ({interval})")
    print(", ".join(parts))  # noqa: T201


if __name__ == "__main__":
    main()
