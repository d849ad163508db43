"""The configuration of quick trainings in tests: a small CNN without pretraining, 32 pixels, on the CPU."""

from __future__ import annotations

from omegaconf import DictConfig

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
    """Compose the real configuration with the overrides for quick trainings, and then with `overrides`."""
    return config.compose_config([*SMALL, *overrides])
