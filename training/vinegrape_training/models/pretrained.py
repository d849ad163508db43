"""Networks with pretrained weights: from timm's hub or from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
from huggingface_hub import HfApi, try_to_load_from_cache
from timm.models import PretrainedCfg, load_state_dict
from torch import Tensor, nn

from vinegrape_training.errors import ModelError

_HUB_TIMEOUT_SECONDS = 5.0
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def timm_model(architecture: str, **arguments: Any) -> nn.Module:
    """Create one of timm's networks."""
    model: nn.Module = timm.create_model(architecture, **arguments)
    return model


def load_from_hub(architecture: str, num_classes: int, config: PretrainedCfg, options: dict[str, Any]) -> nn.Module:
    """Create a network with the weights of timm's hub, or of its cache.

    Raises:
        ModelError: there are no such weights, or the hub cannot be reached.
    """
    _check_hub(architecture, config)
    try:
        return timm_model(architecture, pretrained=True, num_classes=num_classes, **options)
    except Exception as error:  # the hub's client has a different error for each way to fail
        raise _hub_error(architecture, error) from error


def _check_hub(architecture: str, config: PretrainedCfg) -> None:
    """Ask the hub once: its downloader would try for most of a minute before it says that there is no network."""
    if not config.has_weights:
        raise ModelError(f"{architecture} has no pretrained weights; give weights=none, or a file: weights=PATH.")
    hub = config.hf_hub_id
    files = (config.hf_hub_filename,) if config.hf_hub_filename else _HUB_FILES
    if not hub or any(isinstance(try_to_load_from_cache(hub, file), str) for file in files):
        return
    try:
        HfApi().model_info(hub, timeout=_HUB_TIMEOUT_SECONDS)
    except Exception as error:  # as above
        raise _hub_error(architecture, error) from error


def _hub_error(architecture: str, error: Exception) -> ModelError:
    return ModelError(
        f"The pretrained weights of {architecture} cannot be fetched from timm's hub ({error}). "
        "Give a file that holds them, weights=PATH, or start from random ones, weights=none."
    )


def load_from_file(
    architecture: str, num_classes: int, path: Path, classifier: str | tuple[str, ...] | None, options: dict[str, Any]
) -> nn.Module:
    """Fit the network to the file, load strictly, and only then replace the classifier.

    timm's own loading stops being strict when the number of classes differs: a foreign file would load nothing and
    say nothing.
    """
    state = _read_state(path)
    name = classifier[0] if isinstance(classifier, tuple) else classifier
    weight = state.get(f"{name}.weight")
    file_classes = num_classes if weight is None else weight.shape[0]
    overlay = {"state_dict": state, "num_classes": file_classes, "custom_load": False}
    try:
        model = timm_model(
            architecture, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=file_classes, **options
        )
    except Exception as error:  # timm's filters and torch's loader each raise in their own way
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{path} does not hold weights of {architecture}: {reason}") from error
    model.pretrained_cfg.pop("state_dict")  # type: ignore[operator, union-attr]  # else the network keeps it for life
    if file_classes != num_classes:
        model.reset_classifier(num_classes)  # type: ignore[operator]
    return model


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ModelError(f'There is no weights file {path}. weights is "imagenet", "none" or the path of a file.')
    try:
        state: dict[str, Tensor] = load_state_dict(str(path), weights_only=True)
    except Exception as error:  # from unpicklers and zip readers to safetensors: nearly anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{path} cannot be read as weights: {reason}") from error
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelError(f"{path} is not a state dict: it must map names to tensors and nothing else.")
    return state
