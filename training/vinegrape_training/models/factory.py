"""One factory for every network: any of timm's by name, and our own baseline."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import timm
from timm.data.config import resolve_model_data_config
from timm.models import PretrainedCfg, group_modules
from torch import nn

import vinegrape_training.models.small_cnn  # noqa: F401 - registers the network with timm
from vinegrape_handler.metadata import INTERPOLATIONS, Interpolation
from vinegrape_training.errors import ModelError
from vinegrape_training.models.pretrained import load_from_file, load_from_hub, timm_model


@dataclass(frozen=True)
class Preprocessing:
    """What a network wants to see.

    Attributes:
        mean, std: of each channel of RGB, on a scale of 0 to 1.
        interpolation: how images are resized.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Interpolation


def create_model(architecture: str, num_classes: int, weights: str, input_size: int | None = None) -> nn.Module:
    """Create a network.

    Args:
        architecture: timm's name, with or without the tag of its weights.
        num_classes: outputs; the weights' own classifier stays only if it has as many.
        weights: "imagenet" (from timm's hub, or its cache), "none", or the path of a file: a state dict, by
            torch.save or safetensors, of this architecture. Everything in it must fit, the classifier's size apart.
        input_size: pixels a side, for the networks (most transformers) that are built for one size alone.

    Returns:
        The network: normalised float32 [N, 3, S, S] to logits [N, num_classes].

    Raises:
        ModelError: an unknown architecture, weights that do not fit, a file or a hub that is not there.
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
    """What timm says that a network wants to see.

    Args:
        model: made by `create_model`.
        interpolation: instead of timm's.

    Raises:
        ModelError: an interpolation that the server does not have.
    """
    config = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
    wanted = interpolation or config["interpolation"]
    for offered in INTERPOLATIONS:
        if wanted == offered:
            return Preprocessing(tuple(config["mean"]), tuple(config["std"]), offered)
    raise ModelError(
        f"The model wants images resized by {wanted!r}, the server has {', '.join(INTERPOLATIONS)}; "
        "choose one, for example model.interpolation=bicubic."
    )


def classifier_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of the last layer, or of both where a network has two (distilled transformers)."""
    classifier: Any = model.get_classifier()  # type: ignore[operator]
    layers = classifier if isinstance(classifier, (tuple, list)) else (classifier,)
    return [parameter for layer in layers for parameter in layer.parameters()]


def freeze_stages(model: nn.Module, count: int) -> None:
    """Leave the first stages as they are: no gradients, and batch norm with the statistics that it came with.

    Args:
        model: in training mode.
        count: of stages as timm's `group_matcher` counts them, from the stem on: MobileNetV2 has the stem, seven
            stages, and the last convolution.

    Raises:
        ModelError: a network without that many stages.
    """
    if not count:
        return
    if not hasattr(model, "group_matcher"):
        raise ModelError("The network says nothing about its stages; none can be frozen: model.frozen_stages=0.")
    stages = group_modules(model, model.group_matcher(coarse=True))  # type: ignore[operator]
    if count >= len(stages):
        raise ModelError(f"model.frozen_stages is {count}; the network has {len(stages)}, and one must learn.")
    for stage in range(count):
        for name in stages[stage]:
            model.get_submodule(name).requires_grad_(False).eval()


def _config(architecture: str) -> PretrainedCfg:
    """What timm knows of an architecture."""
    name = architecture.split(".")[0]
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(close)}?" if close else "timm.list_models() gives the names."
        raise ModelError(f"timm has no model {architecture!r}; {hint}")
    try:
        config = timm.get_pretrained_cfg(architecture, allow_unregistered=False)
    except RuntimeError as error:
        tags = ", ".join(tagged.partition(".")[2] for tagged in timm.list_pretrained(f"{name}.*"))
        raise ModelError(f"{error} {name} has weights tagged {tags or 'nothing'}.") from error
    return cast(PretrainedCfg, config)  # None only where unregistered is allowed
