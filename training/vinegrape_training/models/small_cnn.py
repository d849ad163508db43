"""A small CNN without pretraining, the baseline for pretrained networks. The import registers it with timm."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from timm.layers.classifier import ClassifierHead
from timm.layers.conv_bn_act import ConvNormAct
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

_WIDTHS = (32, 64, 128, 256)

default_cfgs = generate_default_cfgs(
    {
        "small_cnn.untrained": {
            "url": "",
            "num_classes": 1000,
            "input_size": (3, 128, 128),
            "pool_size": (8, 8),
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "first_conv": "blocks.0.conv1.conv",
            "classifier": "head.fc",
        }
    }
)


class Block(nn.Module):
    """Two 3 x 3 convolutions and max pooling: [N, in, H, W] to [N, out, H/2, W/2]."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(in_channels, out_channels, 3)
        self.conv2 = ConvNormAct(out_channels, out_channels, 3)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """Compute features [N, out, H/2, W/2] of features [N, in, H, W]."""
        y: Tensor = self.pool(self.conv2(self.conv1(x)))
        return y


class SmallCnn(nn.Module):
    """Four blocks and a linear classifier, about 1.2 million parameters, with the interface of timm's models."""

    def __init__(
        self, num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.1
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = _WIDTHS[-1]
        widths = (in_chans, *_WIDTHS)
        self.blocks = nn.Sequential(*(Block(*pair) for pair in pairwise(widths)))
        self.head = ClassifierHead(self.num_features, num_classes, global_pool, drop_rate)

    def get_classifier(self) -> nn.Module:
        """Return the last linear layer."""
        return self.head.fc  # type: ignore[no-any-return]

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last layer by a new one with random weights, or remove it if `num_classes` is 0."""
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool)

    def forward_features(self, x: Tensor) -> Tensor:
        """Compute features [N, 256, H/16, W/16] of normalised images [N, 3, H, W]."""
        y: Tensor = self.blocks(x)
        return y

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Compute logits [N, classes] of features [N, 256, H/16, W/16]; with `pre_logits`, pooled ones [N, 256]."""
        y: Tensor = self.head(x, pre_logits=pre_logits)
        return y

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits [N, classes] of normalised images [N, 3, H, W]."""
        return self.forward_head(self.forward_features(x))


@register_model
def small_cnn(pretrained: bool = False, **kwargs: Any) -> SmallCnn:
    """Create the baseline. It has no pretrained weights."""
    model: SmallCnn = build_model_with_cfg(SmallCnn, "small_cnn", pretrained, **kwargs)
    return model
