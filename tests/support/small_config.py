"""The configuration of quick trainings in tests: a small CNN without pretraining, 32 pixels, on the CPU."""

from __future__ import annotations

from functools import cache

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from vinegrape_training.fit import config

SMALL = (
    "model=small_cnn",
    "optimizer=adamw_scratch",
    "weights=none",
    "input_size=32",
    "trainer.accelerator=cpu",
    "trainer.average_decay=null",  # a few steps are too few for a running average
)


def compose_config(*overrides: str) -> DictConfig:
    """Compose the real configuration with the overrides for quick trainings, and then with `overrides`.

    Hydra takes 0.2 s per composition. So each selection of groups, such as augmentation=light, is composed once, and
    plain values are set in a copy. Hydra itself handles everything else, such as an unknown key.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException:
        return config.compose_config([*SMALL, *overrides])
    groups = [override for override in parsed if (config.CONFIG_FOLDER / override.key_or_group).is_dir()]
    values = [override for override in parsed if override not in groups]
    cfg = _compose(tuple(str(override.input_line) for override in groups)).copy()
    if not all(_is_plain_value(override, cfg) for override in values):
        return config.compose_config([*SMALL, *overrides])
    for override in values:
        OmegaConf.update(cfg, override.key_or_group, override.value())
    return cfg


@cache
def _compose(groups: tuple[str, ...]) -> DictConfig:
    return config.compose_config([*SMALL, *groups])


def _is_plain_value(override: Override, cfg: DictConfig) -> bool:
    """Whether the override sets a key that the configuration has."""
    changes_keys = override.is_add() or override.is_delete() or override.is_force_add()
    parent, _, key = override.key_or_group.rpartition(".")
    group = OmegaConf.select(cfg, parent) if parent else cfg
    return not changes_keys and isinstance(group, DictConfig) and (key in group or OmegaConf.is_missing(group, key))
