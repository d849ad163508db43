"""Networks with pretrained weights, from timm's hub or from a file."""

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
    """Create a timm model. This is `timm.create_model` with a type."""
    model: nn.Module = timm.create_model(architecture, **arguments)
    return model


def load_from_hub(architecture: str, num_classes: int, config: PretrainedCfg, options: dict[str, Any]) -> nn.Module:
    """Create a network with weights from timm's hub or its cache.

    Args:
        architecture: timm's name.
        num_classes: number of outputs.
        config: timm's configuration of the architecture.
        options: further arguments of `timm.create_model`.

    Raises:
        ModelError: there are no such weights, or the hub cannot be reached.
    """
    _check_hub(architecture, config)
    try:
        return timm_model(architecture, pretrained=True, num_classes=num_classes, **options)
    except Exception as error:  # the hub's client has no common base class for its errors
        raise _hub_error(architecture, error) from error


def _check_hub(architecture: str, config: PretrainedCfg) -> None:
    """Send one request to the hub. Without a network, its downloader retries for almost a minute before it fails."""
    if not config.has_weights:
        raise ModelError(f"{architecture} has no pretrained weights; give weights=none, or a file: weights=PATH.")
    hub = config.hf_hub_id
    files = (config.hf_hub_filename,) if config.hf_hub_filename else _HUB_FILES
    if not hub or any(isinstance(try_to_load_from_cache(hub, file), str) for file in files):
        return
    try:
        HfApi().model_info(hub, timeout=_HUB_TIMEOUT_SECONDS)
    except Exception as error:  # as in load_from_hub
        raise _hub_error(architecture, error) from error


def _hub_error(architecture: str, error: Exception) -> ModelError:
    return ModelError(
        f"The pretrained weights of {architecture} cannot be downloaded from timm's hub ({error}). "
        "Give a file with the weights, weights=PATH, or start from random weights, weights=none."
    )


def load_from_file(
    architecture: str, num_classes: int, path: Path, classifier: str | tuple[str, ...] | None, options: dict[str, Any]
) -> nn.Module:
    """Create a network with the classes of the file, load the file strictly, then replace the classifier.

    timm does not load strictly if the number of classes differs: it would silently ignore a file of another
    architecture.

    Args:
        architecture: timm's name.
        num_classes: number of outputs.
        path: state dict, saved by torch or safetensors.
        classifier: timm's name of the last layer.
        options: further arguments of `timm.create_model`.

    Raises:
        ModelError: the file is missing, cannot be read, or does not fit the architecture.
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
    except Exception as error:  # timm's filters and torch's loader raise different exceptions
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{path} does not hold weights of {architecture}: {reason}") from error
    model.pretrained_cfg.pop("state_dict")  # type: ignore[operator, union-attr]  # frees the file's tensors
    if file_classes != num_classes:
        model.reset_classifier(num_classes)  # type: ignore[operator]
    return model


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ModelError(f'There is no weights file {path}. weights must be "imagenet", "none" or the path of a file.')
    try:
        state: dict[str, Tensor] = load_state_dict(str(path), weights_only=True)
    except Exception as error:  # unpickler, zip reader and safetensors raise many kinds of exceptions
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{path} cannot be read as weights: {reason}") from error
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelError(f"{path} is not a state dict; it must map names to tensors only.")
    return state
