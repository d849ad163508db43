"""Lightning's trainer, set up from a configuration, and the trained network on images."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import hydra
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import WandbLogger
from omegaconf import DictConfig
from torch.utils.data import TensorDataset

from vinegrape_training.data.datamodule import LeavesDataModule
from vinegrape_training.evaluation.predictions import Evaluation
from vinegrape_training.fit.lightning_module import ClassifierModule

_BATCH_SIZE = 32


class History(Callback):
    """Keeps each epoch's figures, whatever the logger."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note them; validation has run by now."""
        self.epochs.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def fit(cfg: DictConfig, folder: Path, classifier: ClassifierModule, data: LeavesDataModule) -> list[dict[str, float]]:
    """Train, and take the best checkpoint's weights, or the last; give each epoch's figures."""
    settings = dict(cfg.trainer)
    monitor, mode, patience, decay = (settings.pop(name) for name in ("monitor", "mode", "patience", "average_decay"))
    if settings["precision"] == "auto":
        settings["precision"] = precision(settings["accelerator"])
    history = History()
    callbacks: list[Callback] = [RichProgressBar(leave=True), history]
    if decay:
        callbacks.append(EMAWeightAveraging(decay=decay))
    # Not the weights alone: of those, Lightning would keep what is not averaged
    checkpoint = ModelCheckpoint(folder / "checkpoints", "best", monitor=monitor, mode=mode)
    validated = len(data.validation) > 0
    if validated:
        callbacks += [checkpoint, EarlyStopping(monitor, patience=patience, mode=mode)]
    else:
        settings["limit_val_batches"] = 0
    trainer = Trainer(
        default_root_dir=folder,
        logger=hydra.utils.instantiate(cfg.logger),
        callbacks=callbacks,
        enable_checkpointing=validated,
        enable_model_summary=False,
        **settings,
    )
    trainer.fit(classifier, data)
    if isinstance(trainer.logger, WandbLogger):
        trainer.logger.experiment.finish()  # else the next fold or trial would go on in the same run of W&B's
    if validated:
        best = torch.load(checkpoint.best_model_path, map_location="cpu", weights_only=True)
        classifier.load_state_dict(best["state_dict"])
    return history.epochs


def precision(accelerator: str) -> Literal["bf16-mixed", "32-true"]:
    """bfloat16 where the hardware computes in it; elsewhere it would only be slower."""
    if accelerator != "cpu" and torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        here = torch.cpu.get_capabilities()
        native = accelerator in ("cpu", "auto") and bool(here.get("avx512_bf16") or here.get("amx_bf16"))
    return "bf16-mixed" if native else "32-true"


def evaluate(classifier: ClassifierModule, images: TensorDataset) -> Evaluation:
    """Run the network in eval mode, in float32, on the device where it is, on images that are not augmented."""
    pixels, labels = images.tensors
    classifier.eval()
    with torch.inference_mode():
        batches = [classifier(batch.to(classifier.device)).float().cpu() for batch in torch.split(pixels, _BATCH_SIZE)]
    return Evaluation(torch.cat(batches).clone(), labels)
