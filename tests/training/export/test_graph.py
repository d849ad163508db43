import numpy as np
import torch
from torch import nn

from vinegrape_training.export.graph import ServingGraph


class ChannelMeans(nn.Module):
    """Returns the mean of each normalised channel as logits, so that the expected values are known."""

    def forward(self, images):
        return images.mean(dim=(2, 3))


def graph(temperature=1.0):
    return ServingGraph(ChannelMeans(), mean=(0.5, 0.5, 0.5), std=(0.5, 0.25, 0.125), temperature=temperature)


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum()


def test_pixels_are_normalised_per_channel():
    white = torch.full((1, 4, 4, 3), 255, dtype=torch.uint8)
    np.testing.assert_allclose(graph()(white)[0], softmax(np.array([1.0, 2.0, 4.0])), rtol=1e-5)


def test_the_temperature_divides_the_logits():
    white = torch.full((1, 4, 4, 3), 255, dtype=torch.uint8)
    np.testing.assert_allclose(graph(2.0)(white)[0], softmax(np.array([0.5, 1.0, 2.0])), rtol=1e-5)


def test_the_last_axis_of_the_images_holds_the_channels():
    red = torch.zeros(1, 4, 4, 3, dtype=torch.uint8)
    red[..., 0] = 255
    np.testing.assert_allclose(graph()(red)[0], softmax(np.array([1.0, -2.0, -4.0])), rtol=1e-5)


def test_a_module_in_half_precision_returns_float32():
    white = torch.full((1, 4, 4, 3), 255, dtype=torch.uint8)
    probabilities = graph().half()(white)
    assert probabilities.dtype == torch.float32
    np.testing.assert_allclose(probabilities[0], softmax(np.array([1.0, 2.0, 4.0])), rtol=1e-2)
