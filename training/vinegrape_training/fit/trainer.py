"""Training with Lightning's trainer, and evaluation of the trained network on images."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig
from torch.utils.data import TensorDataset

from vinegrape_training.data.datamodule import LeavesDataModule
from vinegrape_training.evaluation.predictions import Evaluation
from vinegrape_training.fit.config import trainer_settings
from vinegrape_training.fit.lightning_module import ClassifierModule
from vinegrape_training.fit.resume import CHECKPOINTS_FOLDER, LastEpoch, last_checkpoint
from vinegrape_training.fit.stage_outputs import StageOutputsModule
from vinegrape_training.models.outputs import ood_score

_BATCH_SIZE = 32


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


def fit(
    cfg: DictConfig,
    folder: Path,
    classifier: ClassifierModule,
    data: LeavesDataModule | StageOutputsModule,
    inputs: str,
    logger: Logger,
) -> list[dict[str, float]]:
    """Train a network, then load the weights of the best checkpoint into it.

    Without validation images, it keeps the weights of the last epoch. If the folder holds the checkpoint of an
    interrupted run, training continues after its last complete epoch.

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
    history = History()
    callbacks: list[Callback] = [RichProgressBar(leave=True), history]
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
        **options,
    )
    trainer.fit(classifier, data, ckpt_path=last if interrupted else None, weights_only=True)
    # the last checkpoint holds the averaged weights too, which the network lacks if no epoch was left to train
    kept = torch.load(best.best_model_path if validated else last_epoch.path, map_location="cpu", weights_only=True)
    classifier.load_state_dict(kept["state_dict"])
    return history.epochs


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


def evaluate(classifier: ClassifierModule, images: TensorDataset) -> Evaluation:
    """Run the network on images without augmentation, in eval mode, in float32, on its current device.

    Args:
        classifier: is left in eval mode.
        images: uint8 [N, 3, S, S] and labels, int64 [N].
    """
    pixels, labels = images.tensors
    classifier.eval()
    with torch.inference_mode():
        batches = [classifier(batch.to(classifier.device)).float().cpu() for batch in torch.split(pixels, _BATCH_SIZE)]
    outputs = torch.cat(batches).clone()
    scores = None if classifier.outlier_weight is None else ood_score(outputs, classifier.classes)
    return Evaluation(outputs[:, : classifier.classes].clone(), labels, scores)
