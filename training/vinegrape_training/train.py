"""Images to weights: `vinegrape train`. `main` is the command line, `train` does the work."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import hydra
import torch
from lightning import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, RichProgressBar
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from torch import nn
from vinegrape_handler.errors import SettingError, VinegrapeError

from vinegrape_training.augmentation import Augmentation
from vinegrape_training.calibration import fit_temperature
from vinegrape_training.datamodule import LeavesDataModule
from vinegrape_training.dataset import DataError, scan, split
from vinegrape_training.evaluation import Evaluation, evaluate
from vinegrape_training.figures import draw_confusion, draw_curves
from vinegrape_training.models import create_model, preprocessing
from vinegrape_training.module import Classifier
from vinegrape_training.run import CONFIG_FILE, RUN_FILE, Run, git_state, library_versions, write_weights


@dataclass(frozen=True)
class TrainResult:
    """What a training made.

    Attributes:
        run: all facts on it, as in `run.json`; its folder and metrics among them.
        model: the network with the best checkpoint's weights, in eval mode.
        history: each epoch's figures by name, such as "validation/accuracy".
    """

    run: Run
    model: nn.Module
    history: list[dict[str, float]]


class History(Callback):
    """Keeps each epoch's figures, whatever the logger."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note them; validation has run by now."""
        self.epochs.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def train(cfg: DictConfig) -> TrainResult:
    """Train, choose the best checkpoint, fit the temperature, measure the test images once, write the run's folder.

    Of several processes that train together, the first alone writes; all need its folder to read the checkpoint.

    Args:
        cfg: `conf/train.yaml`, composed.

    Raises:
        VinegrapeError: a folder, an image, weights or a setting that training cannot work with.
    """
    if OmegaConf.is_missing(cfg.data, "dir"):
        raise DataError("No images to train on: give data.dir=FOLDER, which holds a folder of images for each class.")
    # Lightning's own use of torch, once a step
    warnings.filterwarnings("ignore", message=r".*treespec, LeafSpec.*")
    cfg = cfg.copy()
    OmegaConf.resolve(cfg)  # the time in run_dir stands still from here
    dataset = scan(Path(cfg.data.dir).absolute())
    folder = Path(cfg.run_dir)
    _begin(folder, cfg)
    seed_everything(cfg.seed, workers=True, verbose=False)

    digest = dataset.digest()
    parts = split(dataset, cfg.seed, cfg.data.validation_fraction, cfg.data.test_fraction)
    model = create_model(cfg.model.architecture, len(dataset.classes), str(cfg.weights), cfg.input_size)
    wanted = preprocessing(model, cfg.model.interpolation)
    data = LeavesDataModule(
        dataset,
        parts,
        cfg.input_size,
        wanted.interpolation,
        Augmentation(**cfg.augmentation),
        cfg.data.batch_size,
        cfg.data.workers,
    )
    classifier = Classifier(model, len(dataset.classes), wanted, **cfg.optimizer)
    history = _fit(cfg, folder, classifier, data)

    validation, test = _evaluate(classifier, data)
    temperature = fit_temperature(validation.logits, validation.labels)
    commit, dirty = git_state()
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
        data_digest=digest,
        split=parts,
        metrics={
            "epochs": float(len(history)),
            "validation_accuracy": validation.accuracy,
            "validation_images": float(len(validation.labels)),
            **test.metrics(dataset.classes, temperature),
        },
        libraries=library_versions(),
        git_commit=commit,
        git_dirty=dirty,
        seed=cfg.seed,
    )
    result = TrainResult(run, model.eval(), history)
    _write(result, test)
    return result


@rank_zero_only
def _begin(folder: Path, cfg: DictConfig) -> None:
    """Make the run's folder, and say in it what is about to run."""
    if (folder / RUN_FILE).exists():
        raise SettingError(f"{folder} already holds a finished run; give another folder, run_dir=FOLDER.")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_text(OmegaConf.to_yaml(cfg), encoding="utf-8")


@rank_zero_only
def _write(result: TrainResult, test: Evaluation) -> None:
    """Write what a finished run leaves; `run.json` last, as it says that the run is finished."""
    folder = result.run.folder
    write_weights(result.model, folder)
    draw_curves(result.history, folder / "curves.png")
    draw_confusion(test.confusion(), result.run.classes, folder / "confusion.png")
    result.run.write()


def _fit(cfg: DictConfig, folder: Path, classifier: Classifier, data: LeavesDataModule) -> list[dict[str, float]]:
    """Train, and take the best checkpoint's weights; give each epoch's figures."""
    settings = dict(cfg.trainer)
    monitor, mode, patience = (settings.pop(name) for name in ("monitor", "mode", "patience"))
    history = History()
    checkpoint = ModelCheckpoint(folder / "checkpoints", "best", monitor=monitor, mode=mode, save_weights_only=True)
    trainer = Trainer(
        default_root_dir=folder,
        logger=hydra.utils.instantiate(cfg.logger),
        callbacks=[
            checkpoint,
            EarlyStopping(monitor, patience=patience, mode=mode),
            RichProgressBar(leave=True),
            history,
        ],
        enable_model_summary=False,
        **settings,
    )
    trainer.fit(classifier, data)
    best = torch.load(checkpoint.best_model_path, map_location="cpu", weights_only=True)
    classifier.load_state_dict(best["state_dict"])
    return history.epochs


def _evaluate(classifier: Classifier, data: LeavesDataModule) -> tuple[Evaluation, Evaluation]:
    """Measure the validation images, and the test images for the first and only time."""
    data.setup("test")
    return evaluate(classifier, data.validation), evaluate(classifier, data.test)


@hydra.main(version_base="1.3", config_path=str(Path(__file__).parent / "conf"), config_name="train")
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
    print(  # noqa: T201
        f"{result.run.folder}: validation accuracy {metrics['validation_accuracy']:.1%}, "
        f"test accuracy {metrics['test_accuracy']:.1%} "
        f"({metrics['test_accuracy_low_95']:.1%} to {metrics['test_accuracy_high_95']:.1%})"
    )


if __name__ == "__main__":
    main()
