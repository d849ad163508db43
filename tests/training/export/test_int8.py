"""Quantisation: the normalisation in the first convolution, corrected biases, and what stays float."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnxruntime import InferenceSession
from onnxscript.rewriter import rewrite
from torch import nn

from vinegrape_training.export.graph import ServingGraph
from vinegrape_training.export.int8 import FoldNormalisation, write_int8
from vinegrape_training.export.weights import write_onnx

pytestmark = pytest.mark.trains  # exports networks

MEAN, STD = (0.2, 0.4, 0.6), (0.25, 0.5, 0.125)  # the mean colour is (51, 102, 153)


class Network(nn.Module):
    """Three convolutions and a classifier with seven outputs. Its weights are random."""

    def __init__(self, first):
        super().__init__()
        torch.manual_seed(0)
        if hasattr(first, "reset_parameters"):
            first.reset_parameters()  # its weights must not depend on the tests before
        self.features = nn.Sequential(
            first,
            nn.ReLU6(),
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.ReLU6(),
            nn.Conv2d(8, 16, 1),
        )
        self.classifier = nn.Linear(16, 7)

    def get_classifier(self):
        return self.classifier

    def forward_features(self, images):
        return self.features(images)

    def forward(self, images):
        return self.classifier(self.forward_features(images).mean(dim=(2, 3)))


def write_float(first, path):
    """Write the float file of a network for images of 16 x 16 pixels, six classes, and "something else"."""
    write_onnx(ServingGraph(Network(first).eval(), MEAN, STD, 1.0, 6), 16, path)
    return path


def run(path, images, name):
    return InferenceSession(path, providers=["CPUExecutionProvider"]).run([name], {"images": images})[0]


def operators(path):
    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.fixture(scope="module")
def images():
    """Twelve images of one colour each, with a spot of another."""
    random = np.random.default_rng(0)
    images = np.repeat(np.repeat(random.integers(0, 256, (12, 1, 1, 3), np.uint8), 16, axis=1), 16, axis=2)
    images[:, 4:9, 5:12] = random.integers(0, 256, (12, 1, 1, 3))
    return images


@pytest.fixture(scope="module")
def files(images, tmp_path_factory):
    """The float file, the int8 file, and the int8 file without corrected biases."""
    folder = tmp_path_factory.mktemp("files")
    float32 = write_float(nn.Conv2d(3, 8, 3, stride=2, padding=1), folder / "float32.onnx")
    int8, uncorrected = folder / "int8.onnx", folder / "uncorrected.onnx"
    write_int8(float32, images, int8)
    write_int8(float32, images, uncorrected, correct_biases=False)
    return float32, int8, uncorrected


def test_the_first_convolution_contains_the_normalisation_also_at_the_border(images, tmp_path):
    path = write_float(nn.Conv2d(3, 8, 3, stride=2, padding=(2, 1)), tmp_path / "float32.onnx")
    expected = run(path, images, "activation_maps")
    model = ir.load(path)
    rewrite(model, [FoldNormalisation.rule()])
    ir.save(model, tmp_path / "folded.onnx")
    assert not {"Mul", "Add"} & {node.op_type for node in model.graph}
    np.testing.assert_allclose(run(tmp_path / "folded.onnx", images, "activation_maps"), expected, atol=1e-4)


def test_the_first_convolution_reads_the_pixels(files):
    nodes = onnx.load(files[1]).graph.node
    first = next(node for node in nodes if node.op_type == "Conv")
    dequantised = next(node for node in nodes if node.output[0] == first.input[0])
    transposed = next(node for node in nodes if node.output[0] == dequantised.input[0])
    assert (dequantised.op_type, transposed.op_type) == ("DequantizeLinear", "Transpose")
    assert "Cast" not in operators(files[1])


def test_all_convolutions_but_the_last_layer_have_int8_weights(files):
    graph = onnx.load(files[1]).graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    dequantised = {
        node.output[0]: kinds.get(node.input[0]) for node in graph.node if node.op_type == "DequantizeLinear"
    }
    weights = [dequantised.get(node.input[1]) for node in graph.node if node.op_type == "Conv"]
    assert weights == [onnx.TensorProto.INT8] * 3 + [None]


def test_int8_weights_use_seven_bits(files):
    weights = [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(files[1]).graph.initializer]
    assert max(np.abs(array.astype(int)).max() for array in weights if array.dtype == np.int8 and array.ndim) == 64


@pytest.mark.parametrize("name", ["probabilities", "ood_score", "activation_maps"])
def test_each_output_is_close_to_that_of_the_float_file(files, images, name):
    float32, int8, _ = files
    expected = run(float32, images, name)
    assert np.abs(run(int8, images, name) - expected).max() < 0.05 * np.ptp(expected)


def test_corrected_biases_remove_the_mean_error_of_the_last_features(files, images):
    float32, int8, uncorrected = (run(path, images, "activation_maps").mean(axis=(0, 2, 3)) for path in files)
    assert np.abs(int8 - float32).mean() < 0.2 * np.abs(uncorrected - float32).mean()


def test_a_network_that_begins_with_another_layer_keeps_its_float_normalisation(images, tmp_path):
    first = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(3, 8, 3, padding=1))
    path = write_float(first, tmp_path / "float32.onnx")
    write_int8(path, images, tmp_path / "int8.onnx")
    assert {"Mul", "Add"} < set(operators(tmp_path / "int8.onnx"))
    int8 = run(tmp_path / "int8.onnx", images, "ood_score")
    np.testing.assert_allclose(int8, run(path, images, "ood_score"), atol=0.01)


def test_the_border_fits_each_batch_size(files, images):
    _, int8, _ = files
    single = np.concatenate([run(int8, image[np.newaxis], "probabilities") for image in images])
    np.testing.assert_allclose(run(int8, images, "probabilities"), single, atol=1e-6)
