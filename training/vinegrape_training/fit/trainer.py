"""Training with Lightning's trainer, and evaluation of the trained network on images."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy, Strategy
from omegaconf import DictConfig
from torch import Tensor

from vinegrape_training.data.datamodule import AugmentedDataModule
from vinegrape_training.data.streaming import ShardsDataModule
from vinegrape_training.evaluation.predictions import Evaluation
from vinegrape_training.fit.config import trainer_settings
from vinegrape_training.fit.lightning_module import ClassifierModule
from vinegrape_training.fit.machines import Machine, find_machine
from vinegrape_training.fit.resume import CHECKPOINTS_FOLDER, LastEpoch, last_checkpoint
from vinegrape_training.fit.settings import TrainerSettings
from vinegrape_training.fit.stage_outputs import StageOutputsModule
from vinegrape_training.models.outputs import ood_score


class History(Callback):
    """Collects the metrics of each epoch, independent of the logger. A resumed run has those of all epochs.

    Attributes:
        epochs: per epoch, metric name to value, such as "validation/accuracy" to 0.9.
    """

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Store the metrics. Lightning runs the validation before this."""
        self.epochs.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint stores."""
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what a checkpoint has stored."""
        self.epochs = list(state_dict["epochs"])


class SeedPerProcess(Callback):
    """Gives each process other random numbers for augmentation, MixUp and outliers. Lightning gives all the same.

    Args:
        seed: of the first process.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed torch at the first step. Shuffling is not affected: it has a generator of its own."""
        if trainer.global_rank > 0 and trainer.global_step == 0:
            torch.manual_seed(self._seed + trainer.global_rank)


def fit(
    cfg: DictConfig,
    folder: Path,
    classifier: ClassifierModule,
    data: AugmentedDataModule | StageOutputsModule,
    inputs: str,
    logger: Logger,
) -> list[dict[str, float]]:
    """Train a network, then load the weights of the best checkpoint into it.

    Without validation images, it keeps the weights of the last epoch. If the folder holds the checkpoint of an
    interrupted run, training continues after its last complete epoch. If several processes train together, the first
    one writes the checkpoints, reads the best one, and sends its weights to the others.

    Args:
        cfg: `conf/train.yaml`, composed; its group `trainer` is used.
        folder: the run's folder; the checkpoints are written to its subfolder `checkpoints`.
        classifier: the network, which is changed in place.
        data: training and validation images, or the outputs of the frozen stages.
        inputs: digest of the images and their split.
        logger: of the metrics of each epoch.

    Returns:
        The metrics of each epoch by name.

    Raises:
        SettingError: the interrupted run had other images or another split.
    """
    settings = trainer_settings(cfg)
    options = dict(settings.lightning)
    if options["precision"] == "auto":
        options["precision"] = precision(options["accelerator"])
    machine = find_machine(options["num_nodes"], options["devices"])
    options["strategy"] = strategy(settings, machine)
    history = History()
    callbacks: list[Callback] = [RichProgressBar(leave=True), history, SeedPerProcess(cfg.seed)]
    if settings.average_decay:
        callbacks.append(EMAWeightAveraging(decay=settings.average_decay))
    # with `save_weights_only`, Lightning would save the weights that are not averaged
    best = ModelCheckpoint(folder / CHECKPOINTS_FOLDER, "best", monitor=settings.monitor, mode=settings.mode)
    validated = len(data.validation) > 0
    if validated:
        callbacks += [best, EarlyStopping(settings.monitor, patience=settings.patience, mode=settings.mode)]
    else:
        options["limit_val_batches"] = 0
    last = last_checkpoint(folder)
    interrupted = last.is_file()
    last_epoch = LastEpoch(last, inputs)
    callbacks.append(last_epoch)
    trainer = Trainer(
        default_root_dir=folder,
        logger=logger,
        callbacks=callbacks,
        max_epochs=settings.max_epochs,
        enable_model_summary=False,
        plugins=[*machine.plugins()],
        reload_dataloaders_every_n_epochs=int(isinstance(data, ShardsDataModule)),  # each epoch has another order
        **options,
    )
    trainer.fit(classifier, data, ckpt_path=last if interrupted else None, weights_only=True)
    # the last checkpoint holds the averaged weights too, which the network lacks if no epoch was left to train
    kept = Path(best.best_model_path) if validated else last_epoch.path
    classifier.load_state_dict(_weights(trainer, kept))
    return history.epochs


def _weights(trainer: Trainer, checkpoint: Path) -> dict[str, Tensor]:
    """Read the weights of a checkpoint in the first process, and send them to the others."""
    weights: dict[str, Tensor] = {}
    if trainer.is_global_zero:
        weights = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    return trainer.strategy.broadcast(weights)


def strategy(settings: TrainerSettings, machine: Machine) -> str | Strategy:
    """Return Lightning's strategy: DDP that fails after `timeout_s`, or the configured one if that is not DDP."""
    name, devices = settings.lightning["strategy"], settings.lightning["devices"]
    several = machine.count > 1 or (devices not in (1, "auto"))
    if name == "ddp" or (name == "auto" and several):
        return DDPStrategy(timeout=timedelta(seconds=settings.timeout_s))
    return str(name)


def precision(accelerator: str) -> Literal["bf16-mixed", "32-true"]:
    """Return bfloat16 mixed precision if the hardware supports it. Emulated bfloat16 is slower than float32.

    Args:
        accelerator: Lightning's name, such as "auto", "cpu" or "gpu".
    """
    if accelerator != "cpu" and torch.cuda.is_available():
        supported = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        cpu = torch.cpu.get_capabilities()
        supported = accelerator in ("cpu", "auto") and bool(cpu.get("avx512_bf16") or cpu.get("amx_bf16"))
    return "bf16-mixed" if supported else "32-true"


def evaluate(classifier: ClassifierModule, batches: Iterable[tuple[Tensor, Tensor, Tensor]]) -> Evaluation:
    """Run the network on images without augmentation, in eval mode, in float32, on its current device.

    Args:
        classifier: is left in eval mode.
        batches: images, uint8 [N, 3, S, S], labels, int64 [N], and the places that they get in the result, int64 [N].
    """
    classifier.eval()
    with torch.inference_mode():
        results = [
            (classifier(images.to(classifier.device)).float().cpu(), labels, places)
            for images, labels, places in batches
        ]
    outputs, labels, places = (torch.cat(parts) for parts in zip(*results, strict=True))
    order = places.argsort()
    outputs, labels = outputs[order].clone(), labels[order]
    scores = None if classifier.outlier_weight is None else ood_score(outputs, classifier.classes)
    return Evaluation(outputs[:, : classifier.classes].clone(), labels, scores)
