"""One factory for every network: any timm model by name, and the small CNN baseline."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import timm
from timm.data.config import resolve_model_data_config
from timm.models import PretrainedCfg
from torch import nn

import vinegrape_training.models.small_cnn  # noqa: F401 - registers the network with timm
from vinegrape_handler.metadata import INTERPOLATIONS, Interpolation
from vinegrape_training.errors import ModelError
from vinegrape_training.models.pretrained import load_from_file, load_from_hub, timm_model


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing that a network expects.

    Attributes:
        mean, std: of each RGB channel, for pixels from 0 to 1.
        interpolation: method to resize images.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Interpolation


def create_model(architecture: str, num_classes: int, weights: str, input_size: int | None = None) -> nn.Module:
    """Create a network.

    Args:
        architecture: timm's name, with or without the tag of its weights.
        num_classes: number of outputs. If the weights have another number of classes, their classifier is replaced.
        weights: "imagenet" (timm's hub or its cache), "none" (random), or the path of a state dict of this
            architecture, saved by torch or safetensors. All tensors but the classifier must fit.
        input_size: width and height in pixels, for networks that are built for one size (most transformers).

    Returns:
        The network: normalised float32 [N, 3, S, S] to logits [N, num_classes].

    Raises:
        ModelError: unknown architecture, weights that do not fit, a missing file, or the hub cannot be reached.
    """
    config = _config(architecture)
    options: dict[str, Any] = {}
    if input_size and config.fixed_input_size:
        options["img_size"] = input_size
    if weights == "none":
        return timm_model(architecture, num_classes=num_classes, **options)
    if weights == "imagenet":
        return load_from_hub(architecture, num_classes, config, options)
    return load_from_file(architecture, num_classes, Path(weights), config.classifier, options)


def preprocessing(model: nn.Module, interpolation: str | None = None) -> Preprocessing:
    """Return the preprocessing that timm's configuration gives for a network.

    Args:
        model: network made by `create_model`.
        interpolation: replaces timm's interpolation, if given.

    Raises:
        ModelError: the server does not have this interpolation.
    """
    config = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
    name = interpolation or config["interpolation"]
    for supported in INTERPOLATIONS:
        if name == supported:
            return Preprocessing(tuple(config["mean"]), tuple(config["std"]), supported)
    raise ModelError(
        f"The model's interpolation is {name!r}; the server has {', '.join(INTERPOLATIONS)}. "
        "Choose one, for example model.interpolation=bicubic."
    )


def classifier_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of the last layer, or of both last layers of a distilled transformer."""
    classifier: Any = model.get_classifier()  # type: ignore[operator]
    layers = classifier if isinstance(classifier, (tuple, list)) else (classifier,)
    return [parameter for layer in layers for parameter in layer.parameters()]


def _config(architecture: str) -> PretrainedCfg:
    """Return timm's configuration of an architecture."""
    name = architecture.split(".")[0]
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(close)}?" if close else "timm.list_models() lists the names."
        raise ModelError(f"timm has no model {architecture!r}; {hint}")
    try:
        config = timm.get_pretrained_cfg(architecture, allow_unregistered=False)
    except RuntimeError as error:
        tags = ", ".join(tagged.partition(".")[2] for tagged in timm.list_pretrained(f"{name}.*"))
        raise ModelError(f"{error} The tags of {name}'s weights: {tags or 'none'}.") from error
    return cast(PretrainedCfg, config)  # None is possible only with allow_unregistered
