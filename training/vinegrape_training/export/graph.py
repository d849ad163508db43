"""The exported graph: uint8 images to probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ServingGraph(nn.Module):
    """All steps from a resized image to its probabilities, so that every runtime computes the same.

    The graph transposes and normalises the image, runs the network, divides the logits by the temperature (Guo et al.
    2017, "On Calibration of Modern Neural Networks") and computes the softmax.
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float], temperature: float) -> None:
        """Wrap a network.

        Args:
            network: takes normalised float32 [N, 3, S, S] and returns logits [N, C].
            mean: of each channel, for pixels between 0 and 1.
            std: standard deviation of each channel, for pixels between 0 and 1.
            temperature: what the logits are divided by, above 0.
        """
        super().__init__()
        mean_, std_ = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)
        # (pixel / 255 - mean) / std as one multiplication and one addition
        self.register_buffer("scale", 1 / (255 * std_))
        self.register_buffer("offset", -mean_ / std_)
        self.network = network
        self.temperature = temperature

    def forward(self, images: Tensor) -> Tensor:
        """Compute float32 probabilities [N, C] of uint8 images [N, S, S, 3].

        The images are converted to the type of the weights, so that a module in half precision computes in half
        precision up to the logits.
        """
        normalised = images.permute(0, 3, 1, 2).type_as(self.scale) * self.scale + self.offset  # [N, 3, S, S]
        logits = self.network(normalised).float()
        return torch.softmax(logits / self.temperature, dim=1)
