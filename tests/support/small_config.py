from __future__ import annotations

from omegaconf import DictConfig

from vinegrape_training.fit import config

SMALL = (
    "model=small_cnn",
    "optimizer=adamw_scratch",
    "weights=none",
    "input_size=32",
    "trainer.accelerator=cpu",
    "trainer.average_decay=null",  # runs of a few steps have nothing to average
)


def compose_config(*overrides: str) -> DictConfig:
    """The real configuration, for the small CNN from scratch at 32 pixels, on CPU."""
    return config.compose_config([*SMALL, *overrides])
