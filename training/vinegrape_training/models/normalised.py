"""Normalisation in front of a network, for training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalised(nn.Module):
    """A network with its normalisation: pixels from 0 to 255 in, logits out.

    It computes `(x - 255 * mean) / (255 * std)`, which is `(x / 255 - mean) / std`. The exported graph
    (`export/graph.py`) has its own, fused form.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        """Put the normalisation in front of a network.

        Args:
            network: normalised float32 [N, 3, S, S] to logits [N, classes].
            mean: of each RGB channel, for pixels from 0 to 1.
            std: of each RGB channel, for pixels from 0 to 1.
        """
        super().__init__()
        self.network = network
        self.register_buffer("mean", 255 * torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits [N, classes] of images [N, 3, S, S], 0 to 255."""
        logits: Tensor = self.network(self.normalise(images))
        return logits

    def normalise(self, images: Tensor) -> Tensor:
        """Normalise images [N, 3, S, S], 0 to 255."""
        return (images - self.mean) / self.std
