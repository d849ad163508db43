"""The configuration of a training, for the commands that train more than once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vinegrape_handler.errors import SettingError
from vinegrape_training.errors import DataError

CONFIG_FOLDER = Path(__file__).parents[1] / "conf"
CONFIG_NAME = "train"


class _Number(NamedTuple):
    """What a value of the configuration may be: from `least` to `most`, both included."""

    kind: type[int] | type[float]
    least: float
    most: float


_NUMBERS = {
    "seed": _Number(int, 0, 2**32 - 1),
    "input_size": _Number(int, 16, 4096),
    "data.batch_size": _Number(int, 1, 65536),
    "data.validation_fraction": _Number(float, 0, 1),
    "data.test_fraction": _Number(float, 0, 1),
    "model.frozen_stages": _Number(int, 0, 1000),
    "optimizer.backbone_lr": _Number(float, 0, 1),
    "optimizer.head_lr": _Number(float, 0, 1),
    "optimizer.weight_decay": _Number(float, 0, 1),
    "optimizer.warmup_epochs": _Number(float, 0, 1000),
    "optimizer.label_smoothing": _Number(float, 0, 1),
    "optimizer.mixup": _Number(float, 0, 100),
    "trainer.max_epochs": _Number(int, 1, 100_000),
    "trainer.patience": _Number(int, 0, 100_000),
}
_NUMBERS_OR_NULL = {"trainer.average_decay": _Number(float, 0, 1)}


def check(cfg: DictConfig) -> None:
    """Refuse numbers that no training can work with; augmentations check their own.

    Raises:
        SettingError: says which, and what it may be.
    """
    for name, number in (_NUMBERS | _NUMBERS_OR_NULL).items():
        value = OmegaConf.select(cfg, name)
        if value is None and name in _NUMBERS_OR_NULL:
            continue
        fits = isinstance(value, (int, number.kind)) and not isinstance(value, bool)
        if not fits or not number.least <= value <= number.most:
            kind = "a whole number" if number.kind is int else "a number"
            raise SettingError(f"{name} must be {kind} from {number.least} to {number.most}; it is {value!r}.")


def data_dir(cfg: DictConfig) -> Path:
    """Where the images lie, absolute.

    Raises:
        DataError: nobody has said.
    """
    if OmegaConf.is_missing(cfg.data, "dir"):
        raise DataError("No images to train on: give data.dir=FOLDER, which holds a folder of images for each class.")
    return Path(cfg.data.dir).absolute()


def check_one_process(cfg: DictConfig) -> None:
    """Refuse several processes, each of which would take `data.batch_size` images a step: that is another recipe.

    Raises:
        SettingError: there is to be more than one.
    """
    if (cfg.trainer.devices, cfg.trainer.num_nodes) != (1, 1):
        raise SettingError(
            "What is evaluated, searched or shipped after an evaluation trains in one process: leave "
            f"trainer.devices={cfg.trainer.devices} and trainer.num_nodes={cfg.trainer.num_nodes} at 1."
        )


def check_repeated(cfg: DictConfig) -> None:
    """Refuse what a command that trains again and again cannot work with; what folders hold is not looked at.

    Raises:
        VinegrapeError: says which setting, and what it may be.
    """
    data_dir(cfg)
    check(cfg)
    check_one_process(cfg)
    if cfg.evaluation:
        raise SettingError(f"evaluation={cfg.evaluation} is for the one training that follows it: leave it out here.")


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """Compose `conf/train.yaml` with overrides, as Hydra does for `vinegrape train`.

    Raises:
        SettingError: an override that the configuration does not know, or that is not written as Hydra wants it.
    """
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        try:
            return compose(CONFIG_NAME, list(overrides))
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise SettingError(f"{' '.join(overrides)} does not fit the configuration: {reason}") from error
