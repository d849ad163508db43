"""The configuration of a training: composition with Hydra, and checks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vinegrape_handler.errors import SettingError
from vinegrape_training.checks import check_number, read_group
from vinegrape_training.data.shards import absolute
from vinegrape_training.data.streaming import StreamSettings
from vinegrape_training.errors import DataError
from vinegrape_training.fit.settings import OptimizerSettings, OutlierSettings, TrainerSettings

CONFIG_FOLDER = Path(__file__).parents[1] / "conf"
CONFIG_NAME = "train"

# Numbers outside the groups that have a settings class: type, smallest and largest value
_RANGES: dict[str, tuple[type[int] | type[float], float, float]] = {
    "seed": (int, 0, 2**32 - 1),
    "input_size": (int, 16, 4096),
    "data.batch_size": (int, 1, 65536),
    "data.validation_fraction": (float, 0, 1),
    "data.test_fraction": (float, 0, 1),
    "model.frozen_stages": (int, 0, 1000),
}


def check(cfg: DictConfig) -> None:
    """Check the numbers of a configuration, except the augmentation's, which are checked in `Augmentation`.

    Raises:
        SettingError: a number outside its range; the message names it.
    """
    for name, (kind, least, most) in _RANGES.items():
        check_number(name, OmegaConf.select(cfg, name), kind, least, most)
    optimizer_settings(cfg)
    outlier_settings(cfg)
    trainer_settings(cfg)
    if cfg.data.streamed:
        stream_settings(cfg)


def stream_settings(cfg: DictConfig) -> StreamSettings:
    """Read how shards are read, from the group `data`.

    Raises:
        SettingError: a number outside its range.
    """
    return StreamSettings(cfg.data.workers, cfg.data.shuffle_buffer)


def optimizer_settings(cfg: DictConfig) -> OptimizerSettings:
    """Read the group `optimizer`.

    Raises:
        SettingError: an unknown setting, or a number outside its range.
    """
    return read_group(OptimizerSettings, "optimizer", group_values(cfg, "optimizer"))


def outlier_settings(cfg: DictConfig) -> OutlierSettings:
    """Read the group `outliers`.

    Raises:
        SettingError: an unknown setting, or a number outside its range.
    """
    return read_group(OutlierSettings, "outliers", group_values(cfg, "outliers"))


def trainer_settings(cfg: DictConfig) -> TrainerSettings:
    """Read the group `trainer`.

    Raises:
        SettingError: a number outside its range.
    """
    return TrainerSettings.of(group_values(cfg, "trainer"))


def group_values(cfg: DictConfig, name: str) -> dict[str, Any]:
    """Return a group of the configuration as plain values."""
    values: dict[str, Any] = OmegaConf.to_container(cfg[name], resolve=True)  # type: ignore[assignment]
    return values


def data_location(cfg: DictConfig) -> str:
    """Return the absolute path of the folder of images or shards; a URL of shards stays as it is.

    Raises:
        DataError: `data.dir` is not set.
    """
    if OmegaConf.is_missing(cfg.data, "dir"):
        raise DataError(
            "data.dir is not set; give data.dir=FOLDER, a folder that holds one folder of images per class."
        )
    return absolute(str(cfg.data.dir))


def data_dir(cfg: DictConfig) -> Path:
    """Return the absolute path of the folder of images.

    Raises:
        DataError: `data.dir` is not set.
    """
    return Path(data_location(cfg))


def check_one_process(cfg: DictConfig) -> None:
    """Check that training runs in one process.

    With several processes, each takes `data.batch_size` images per step, which is another recipe.

    Raises:
        SettingError: several devices or nodes are configured.
    """
    if (cfg.trainer.devices, cfg.trainer.num_nodes) != (1, 1):
        raise SettingError(
            f"trainer.devices={cfg.trainer.devices} and trainer.num_nodes={cfg.trainer.num_nodes}; both must be 1 in "
            "evaluation, search, and training with `evaluation`, because an evaluated recipe trains in one process."
        )


def check_repeated(cfg: DictConfig) -> None:
    """Check a configuration for a command that trains several times. Images are not read.

    Raises:
        VinegrapeError: a setting is invalid or cannot be used here; the message names it.
    """
    data_dir(cfg)
    check(cfg)
    check_one_process(cfg)
    if cfg.data.streamed:
        raise SettingError(
            "data=shards is only for `vinegrape train`. This command trains several times, on images in memory: give "
            "data=folder and a folder of images as data.dir."
        )
    if cfg.evaluation:
        raise SettingError(
            f"evaluation={cfg.evaluation} is only for the final `vinegrape train`; remove it from this command."
        )


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """Compose `conf/train.yaml` with overrides, as Hydra does for `vinegrape train`.

    Raises:
        SettingError: an override with an unknown key or invalid syntax.
    """
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        try:
            return compose(CONFIG_NAME, list(overrides))
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise SettingError(f"{' '.join(overrides)} does not fit the configuration: {reason}") from error
