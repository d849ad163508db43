"""Artifacts of Weights & Biases: the digests of the images, and the files of a run, an evaluation or an archive.

Images are not uploaded. W&B makes a new version of an artifact only if its files differ. `wandb` is imported by the
functions that need it, because the import takes a second.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import hydra
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from vinegrape_handler.metadata import Metadata
from vinegrape_training.data.dataset import Dataset
from vinegrape_training.evaluation.report import Report
from vinegrape_training.files import REPORT_FILE
from vinegrape_training.fit.config import compose_config
from vinegrape_training.fit.run import CONFIG_FILE, RUN_FILE, Run

DIGESTS_FILE = "sha256sums.txt"


def is_wandb(cfg: DictConfig) -> bool:
    """Return whether a configuration logs to W&B."""
    return bool(cfg.logger) and hydra.utils.get_class(cfg.logger._target_) is WandbLogger


@rank_zero_only
def log_training(logger: Logger, run: Run, dataset: Dataset) -> None:
    """Add the settings, metrics, digests and plots of a finished run to its run of W&B, and close that.

    Without closing it, the next fold or trial would log to the same run. Other loggers than W&B's are left alone.
    """
    if not isinstance(logger, WandbLogger):
        return
    settings = OmegaConf.to_container(OmegaConf.load(run.folder / CONFIG_FILE))
    facts = {"data_digest": run.data_digest, "git_commit": run.git_commit}
    logger.experiment.config.update({**settings, **facts}, allow_val_change=True)  # type: ignore[dict-item]
    logger.experiment.summary.update(run.metrics)
    _log_digests(logger, dataset, run.data_digest)
    plots = sorted(run.folder.glob("*.png"))
    files = [run.folder / RUN_FILE, run.folder / CONFIG_FILE, *plots]
    _log_artifact(logger, f"run-{logger.experiment.id}", "run", facts, files)
    logger.experiment.finish()


def log_evaluation(cfg: DictConfig, folder: Path, report: Report, dataset: Dataset) -> None:
    """Log an evaluation's figures, digests and plots as a run of W&B, if the configuration logs to it."""
    if not is_wandb(cfg):
        return
    logger = hydra.utils.instantiate(cfg.logger, save_dir=str(folder), name=folder.name, job_type="evaluation")
    metrics = report.metrics()
    logger.experiment.config.update({**report.recipe, "seeds": list(report.seeds), "data_digest": report.data_digest})
    logger.experiment.summary.update(metrics)
    _log_digests(logger, dataset, report.data_digest)
    files = [folder / REPORT_FILE, *sorted(folder.glob("*.png"))]
    _log_artifact(logger, f"evaluation-{folder.name}", "evaluation", {"data_digest": report.data_digest}, files)
    logger.experiment.finish()


def log_archive(archive: Path, card: Path, metadata: Metadata) -> None:
    """Log an archive and its model card as an artifact of the type "model", in a run of its own."""
    logger = hydra.utils.instantiate(
        compose_config(["logger=wandb"]).logger,
        save_dir=str(Path.cwd()),  # W&B's own default
        name=f"{metadata.name}-{metadata.version}",
        job_type="archive",
    )
    logger.experiment.summary.update(metadata.metrics)
    facts = {"version": metadata.version, "data_digest": metadata.data_digest, "architecture": metadata.architecture}
    _log_artifact(logger, metadata.name, "model", facts, [archive, card])
    logger.experiment.finish()


def _log_digests(logger: WandbLogger, dataset: Dataset, digest: str) -> None:
    """Log the SHA-256 of each image, in the format of `sha256sum`. The images stay where they are."""
    import wandb

    lines = [f"{each}  {path}\n" for each, path in zip(dataset.file_digests(), dataset.paths, strict=True)]
    facts = {"data_digest": digest, "images": len(dataset.paths), "classes": list(dataset.classes)}
    artifact = wandb.Artifact(_name(dataset.folder.name), type="dataset", metadata=facts)
    with artifact.new_file(DIGESTS_FILE, encoding="utf-8") as file:
        file.writelines(lines)
    logger.experiment.log_artifact(artifact)


def _log_artifact(logger: WandbLogger, name: str, kind: str, facts: Mapping[str, Any], files: Iterable[Path]) -> None:
    """Log files as an artifact, and show its pictures on the page of the run."""
    import wandb

    artifact = wandb.Artifact(_name(name), type=kind, metadata=dict(facts))
    for file in files:
        artifact.add_file(str(file), name=file.name)
        if file.suffix == ".png":
            logger.experiment.log({file.stem: wandb.Image(str(file))})
    logger.experiment.log_artifact(artifact)


def _name(text: str) -> str:
    """Replace characters that W&B does not allow in the name of an artifact."""
    return re.sub(r"[^\w.-]", "-", text)
