import numpy as np
import pytest
import torch
from torch import nn

from vinegrape_training.export.graph import ServingGraph, has_activation_maps
from vinegrape_training.models.factory import create_model


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
    np.testing.assert_allclose(graph()(white)["probabilities"][0], softmax(np.array([1.0, 2.0, 4.0])), rtol=1e-5)


def test_the_temperature_divides_the_logits():
    white = torch.full((1, 4, 4, 3), 255, dtype=torch.uint8)
    np.testing.assert_allclose(graph(2.0)(white)["probabilities"][0], softmax(np.array([0.5, 1.0, 2.0])), rtol=1e-5)


def test_the_last_axis_of_the_images_holds_the_channels():
    red = torch.zeros(1, 4, 4, 3, dtype=torch.uint8)
    red[..., 0] = 255
    np.testing.assert_allclose(graph()(red)["probabilities"][0], softmax(np.array([1.0, -2.0, -4.0])), rtol=1e-5)


def test_a_module_in_half_precision_returns_float32():
    white = torch.full((1, 4, 4, 3), 255, dtype=torch.uint8)
    probabilities = graph().half()(white)["probabilities"]
    assert probabilities.dtype == torch.float32
    np.testing.assert_allclose(probabilities[0], softmax(np.array([1.0, 2.0, 4.0])), rtol=1e-2)


# Activation maps, and images of none of the classes


class Squares(nn.Module):
    """Its last features are the red and the green of each quarter of the image, from 0 to 1."""

    def __init__(self, outputs):
        super().__init__()
        self.classifier = nn.Linear(2, outputs)
        self.classifier.weight.data = torch.tensor([[4.0, 0.0], [0.0, 2.0], [1.0, 1.0]])[:outputs]
        self.classifier.bias.data = torch.tensor([0.5, 0.0, -1.0])[:outputs]

    def get_classifier(self):
        return self.classifier

    def forward_features(self, images):
        return nn.functional.adaptive_avg_pool2d(images[:, :2], 2)

    def forward(self, images):
        return self.classifier(self.forward_features(images).mean(dim=(2, 3)))


def quarters():
    """Red at the top left, green at the bottom right, and black elsewhere."""
    image = torch.zeros(1, 4, 4, 3, dtype=torch.uint8)
    image[0, :2, :2, 0] = image[0, 2:, 2:, 1] = 255
    return image


def graph_of(network, classes=None, temperature=1.0):
    return ServingGraph(network, mean=(0, 0, 0), std=(1, 1, 1), temperature=temperature, classes=classes)


@torch.no_grad()
def test_the_activation_map_of_a_class_is_high_where_the_image_shows_it():
    outputs = graph_of(Squares(2))(quarters())
    np.testing.assert_allclose(outputs["activation_maps"][0], [[[4, 0], [0, 0]], [[0, 0], [0, 2]]], atol=1e-6)
    assert list(outputs) == ["probabilities", "activation_maps"]


@torch.no_grad()
def test_the_mean_of_a_map_and_the_bias_are_the_logit():
    """The logits are 4 / 4 + 0.5 and 2 / 4, and the temperature is no part of the maps."""
    outputs = graph_of(Squares(2), temperature=2.0)(quarters())
    np.testing.assert_allclose(outputs["probabilities"][0], softmax(np.array([1.5, 0.5]) / 2), rtol=1e-5)
    np.testing.assert_allclose(outputs["activation_maps"].mean(dim=(2, 3))[0], [1, 0.5], atol=1e-6)


@torch.no_grad()
def test_an_output_beside_the_classes_becomes_the_ood_score():
    """Its logit is 1 / 4 + 1 / 4 - 1."""
    outputs = graph_of(Squares(3), classes=2)(quarters())
    np.testing.assert_allclose(outputs["probabilities"][0], softmax(np.array([1.5, 0.5])), rtol=1e-5)
    np.testing.assert_allclose(outputs["ood_score"], [-0.5 - np.log(np.exp(1.5) + np.exp(0.5))], rtol=1e-5)
    assert outputs["activation_maps"].shape == (1, 2, 2, 2)
    assert list(outputs) == ["probabilities", "ood_score", "activation_maps"]


class Squashed(Squares):
    """The tangent makes its logits differ from the mean of the layer's outputs."""

    def forward(self, images):
        return torch.tanh(super().forward(images))


@torch.no_grad()
def test_a_network_whose_logits_are_no_mean_of_maps_has_none():
    assert list(graph_of(Squashed(2))(quarters())) == ["probabilities"]
    assert list(graph_of(ChannelMeans())(quarters())) == ["probabilities"]


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("mobilenetv2_035", True),
        ("small_cnn", True),
        ("mobilenetv4_conv_small_035", False),  # has layers between the mean and the classifier
        ("vit_tiny_patch16_224", False),
    ],
)
def test_which_networks_have_maps(architecture, expected):
    assert has_activation_maps(create_model(architecture, 5, "none").eval()) is expected
