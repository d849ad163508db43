"""MobileNetV2 with a narrower last convolution; importing this registers the variants with timm.

Its 1280 features were made for a thousand classes. From pretrained weights, the features stay whose batch norm scales
them most.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from timm.models import (
    EfficientNet,
    PretrainedCfg,
    build_model_with_cfg,
    generate_default_cfgs,
    get_pretrained_cfg,
    register_model,
)
from timm.models._efficientnet_builder import decode_arch_def
from torch import Tensor, nn

# Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", table 2
_STAGES = [
    ["ds_r1_k3_s1_c16"],
    ["ir_r2_k3_s2_e6_c24"],
    ["ir_r3_k3_s2_e6_c32"],
    ["ir_r4_k3_s2_e6_c64"],
    ["ir_r3_k3_s1_e6_c96"],
    ["ir_r3_k3_s2_e6_c160"],
    ["ir_r1_k3_s1_e6_c320"],
]
_WIDTHS = (320, 640)


def _published() -> PretrainedCfg:
    """Where the weights of the network's own width lie, and what they expect."""
    config = get_pretrained_cfg("mobilenetv2_100")
    if config is None:
        raise LookupError("This timm knows no mobilenetv2_100.")
    return config


default_cfgs = generate_default_cfgs({f"mobilenetv2_100_head{width}.ra_in1k": _published() for width in _WIDTHS})


def _narrowed(state: dict[str, Tensor], model: nn.Module, width: int) -> dict[str, Tensor]:
    """Keep `width` features of a state dict: of the last convolution, its batch norm, and the classifier's inputs."""
    kept = state["bn2.weight"].abs().argsort(descending=True)[:width].sort().values
    if len(kept) == len(state["bn2.weight"]):
        return state
    changed = {name: state[name][kept] for name in state if name == "conv_head.weight" or _is_bn2(name, state)}
    return {**state, **changed, "classifier.weight": state["classifier.weight"][:, kept]}


def _is_bn2(name: str, state: dict[str, Tensor]) -> bool:
    return name.startswith("bn2.") and state[name].ndim == 1


def _create(variant: str, width: int, pretrained: bool, **kwargs: Any) -> EfficientNet:
    return build_model_with_cfg(
        EfficientNet,
        variant,
        pretrained,
        pretrained_filter_fn=partial(_narrowed, width=width),
        block_args=decode_arch_def(_STAGES),  # type: ignore[no-untyped-call]
        num_features=width,
        act_layer=nn.ReLU6,
        **kwargs,
    )


@register_model
def mobilenetv2_100_head320(pretrained: bool = False, **kwargs: Any) -> EfficientNet:
    """MobileNetV2 with a quarter of the features."""
    return _create("mobilenetv2_100_head320", 320, pretrained, **kwargs)


@register_model
def mobilenetv2_100_head640(pretrained: bool = False, **kwargs: Any) -> EfficientNet:
    """MobileNetV2 with half of the features."""
    return _create("mobilenetv2_100_head640", 640, pretrained, **kwargs)
