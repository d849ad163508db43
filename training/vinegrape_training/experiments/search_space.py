"""The search space of `sweep.yaml`, which is a Weights & Biases sweep, as Optuna distributions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from vinegrape_handler.errors import SettingError

SWEEP_FILE = Path(__file__).with_name("sweep.yaml")


def load_space(path: Path = SWEEP_FILE) -> dict[str, BaseDistribution]:
    """Read the parameters of a sweep.

    Returns:
        Name of an override to the distribution of its values.

    Raises:
        SettingError: a parameter is neither a list of values nor uniform nor log-uniform.
    """
    # `resolve=False`: the ${...} in the file are for Weights & Biases, not for OmegaConf
    sweep: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    parameters: Mapping[str, Any] = sweep["parameters"]
    return {name: _distribution(name, parameter) for name, parameter in parameters.items()}


def _distribution(name: str, parameter: Mapping[str, Any]) -> BaseDistribution:
    if "values" in parameter:
        return CategoricalDistribution(parameter["values"])
    kind = parameter.get("distribution")
    if kind not in ("uniform", "log_uniform_values"):
        raise SettingError(
            f"{name} has distribution {kind!r}, which is not supported. Use values: [...], or uniform or "
            "log_uniform_values with min and max."
        )
    return FloatDistribution(parameter["min"], parameter["max"], log=kind == "log_uniform_values")
