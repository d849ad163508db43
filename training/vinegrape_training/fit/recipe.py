"""The part of a configuration that decides what network a training gives, and its comparison with an evaluation's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vinegrape_handler.errors import SettingError
from vinegrape_training.data.dataset import Dataset
from vinegrape_training.evaluation.report import Report
from vinegrape_training.fit.config import check_one_process

# Of the configuration, what makes no other network: where things lie, and what only decides how fast it goes
_NOT_OF_THE_RECIPE = ("seed", "run_dir", "evaluation", "logger", "debug", "hydra")
_HARDWARE = ("accelerator", "devices", "num_nodes", "strategy", "precision", "log_every_n_steps")


def recipe(cfg: DictConfig) -> dict[str, Any]:
    """What of a configuration makes the network, whatever the machine: for comparing, and for people to read."""
    values: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    for name in _NOT_OF_THE_RECIPE:
        values.pop(name, None)
    for name in _HARDWARE:
        values["trainer"].pop(name, None)
    values["data"] = {"batch_size": values["data"]["batch_size"]}
    values["weights"] = Path(str(values["weights"])).name
    values["teacher"] = bool(values["teacher"])
    return values


def differences(first: Mapping[str, Any], second: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Where two recipes differ: `["optimizer.mixup is 0.2, now 0.0"]`."""
    found = []
    for name in sorted({*first, *second}):
        one, other = first.get(name), second.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found += differences(one, other, f"{prefix}{name}.")
        elif one != other:
            found.append(f"{prefix}{name} is {one}, now {other}")
    return found


def check_evaluated(report: Report, cfg: DictConfig, dataset: Dataset) -> None:
    """Refuse a training that this report does not speak of.

    Raises:
        SettingError: another recipe, other images, several processes, or no figures of int8.
    """
    if dataset.digest() != report.data_digest:
        raise SettingError(f"The evaluation measured other images than those in {dataset.folder}: evaluate again.")
    if report.int8 is None:
        raise SettingError("The evaluation left out int8, which an archive serves: evaluate again with --int8.")
    check_one_process(cfg)
    if differing := differences(report.recipe, recipe(cfg)):
        raise SettingError(
            f"The evaluation measured another recipe: {'; '.join(differing)}. Train with that, or evaluate again."
        )
