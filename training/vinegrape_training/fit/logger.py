"""The logger of a run, and what it keeps of an interrupted run."""

from __future__ import annotations

import csv
from pathlib import Path

import hydra
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from vinegrape_training.fit.artifacts import is_wandb
from vinegrape_training.fit.resume import last_checkpoint, last_epoch


def make_logger(cfg: DictConfig, folder: Path) -> Logger:
    """Create the configured logger. If the folder holds an interrupted run, it continues that run's log.

    TensorBoard reads all files of the log's folder, so its logger needs no help.

    Args:
        cfg: `conf/train.yaml`, composed; its group `logger` is used.
        folder: the run's folder.
    """
    checkpoint = last_checkpoint(folder)
    if not checkpoint.is_file():
        logger: Logger = hydra.utils.instantiate(cfg.logger)
        return logger
    if is_wandb(cfg):
        return hydra.utils.instantiate(cfg.logger, id=_wandb_id(folder))  # type: ignore[no-any-return]
    logger = hydra.utils.instantiate(cfg.logger)
    if isinstance(logger, CSVLogger):
        _keep_rows(logger, last_epoch(checkpoint))
    return logger


def _wandb_id(folder: Path) -> str | None:
    """Return the id of the run of W&B that an interrupted run has logged to; None if there is none.

    W&B writes to wandb/run-TIME-ID, or to wandb/offline-run-TIME-ID.
    """
    folders = sorted(folder.glob("wandb/*run-*-*"), key=lambda path: path.name.removeprefix("offline-"))
    return folders[-1].name.rpartition("-")[2] if folders else None


@rank_zero_only
def _keep_rows(logger: CSVLogger, epoch: int) -> None:
    """Keep the rows of metrics.csv up to an epoch. The logger would delete the file."""
    path = Path(logger.log_dir) / "metrics.csv"
    if not path.is_file():
        return
    with path.open(encoding="utf-8", newline="") as file:
        rows = [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]
    path.unlink()
    logger.experiment.metrics.extend(row for row in rows if int(row["epoch"]) <= epoch)
    logger.save()
