"""The graph that is exported: uint8 images in, probabilities out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ServingGraph(nn.Module):
    """Everything between a resized image and its probabilities, so that no runtime can differ in it.

    Transposes, normalises, runs the network, divides its logits by the temperature (Guo et al., "On Calibration of
    Modern Neural Networks", 2017) and takes the softmax.
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float], temperature: float) -> None:
        """Wrap a network.

        Args:
            network: float32 [N,3,S,S], normalised, to logits [N,C].
            mean: of each channel, for pixels from 0 to 1.
            std: likewise.
            temperature: above 0; 1 leaves the probabilities as the network gives them.
        """
        super().__init__()
        mean_, std_ = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)
        # (pixel / 255 - mean) / std as one multiplication and one addition
        self.register_buffer("scale", 1 / (255 * std_))
        self.register_buffer("offset", -mean_ / std_)
        self.network = network
        self.temperature = temperature

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [N,S,S,3] to float32 probabilities [N,C].

        The images take the type of the weights: a module turned to half precision computes in it, up to the logits.
        """
        normalised = images.permute(0, 3, 1, 2).type_as(self.scale) * self.scale + self.offset  # [N,3,S,S]
        logits = self.network(normalised).float()
        return torch.softmax(logits / self.temperature, dim=1)
