"""The recipe: the part of a configuration that determines the trained network. Recipes can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vinegrape_handler.errors import SettingError
from vinegrape_training.data.dataset import Dataset
from vinegrape_training.evaluation.report import Report
from vinegrape_training.fit.config import check_one_process

# Keys that do not change the trained network: locations, and settings that only change the speed
_NOT_OF_THE_RECIPE = ("seed", "run_dir", "stage_outputs", "evaluation", "logger", "debug", "hydra")
_HARDWARE = ("accelerator", "devices", "num_nodes", "strategy", "timeout_s", "precision", "log_every_n_steps")


def recipe(cfg: DictConfig) -> dict[str, Any]:
    """Return the recipe of a configuration, without seed, paths and hardware."""
    values: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    for name in _NOT_OF_THE_RECIPE:
        values.pop(name, None)
    for name in _HARDWARE:
        values["trainer"].pop(name, None)
    values["data"] = {"batch_size": values["data"]["batch_size"]}
    values["weights"] = Path(str(values["weights"])).name
    values["teacher"] = bool(values["teacher"])
    if not values["outliers"].pop("dir"):
        values["outliers"] = None
    return values


def differences(first: Mapping[str, Any], second: Mapping[str, Any], prefix: str = "") -> list[str]:
    """List the differences between two recipes, such as `["optimizer.mixup is 0.2, now 0.0"]`."""
    lines = []
    for name in sorted({*first, *second}):
        before, now = first.get(name), second.get(name)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            lines += differences(before, now, f"{prefix}{name}.")
        elif before != now:
            lines.append(f"{prefix}{name} is {before}, now {now}")
    return lines


def check_evaluated(report: Report, cfg: DictConfig, dataset: Dataset) -> None:
    """Check that a report evaluates this training: the same recipe and images, one process, and int8.

    Raises:
        SettingError: the report does not; the message names the difference.
    """
    if dataset.digest() != report.data_digest:
        raise SettingError(f"The evaluation measured other images than those in {dataset.folder}: evaluate again.")
    if report.int8 is None:
        raise SettingError(
            "The evaluation has no metrics of int8, the weights that an archive serves: evaluate again with --int8."
        )
    check_one_process(cfg)
    if differing := differences(report.recipe, recipe(cfg)):
        raise SettingError(
            f"The evaluation measured another recipe: {'; '.join(differing)}. Train with that, or evaluate again."
        )
