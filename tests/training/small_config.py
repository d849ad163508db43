from __future__ import annotations

from pathlib import Path

import vinegrape_training
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

CONFIG = Path(vinegrape_training.__file__).parent / "conf"


def compose_config(*overrides: str) -> DictConfig:
    """The real configuration, for the small CNN from scratch at 32 pixels, on CPU."""
    small = ("model=small_cnn", "optimizer=adamw_scratch", "weights=none", "input_size=32", "trainer.accelerator=cpu")
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        return compose("train", [*small, *overrides])
