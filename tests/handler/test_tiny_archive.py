"""The hand-made model of the tests computes what its description states."""

import numpy as np
import pytest

from tests.support.tiny_archive import BLACK, BLUE, CLASSES, GREEN, RED, SIDE, probabilities
from vinegrape_handler.networks import load_network
from vinegrape_handler.settings import WorkerSettings


@pytest.mark.parametrize(
    ("colour", "label", "probability"),
    [(RED, "Ak", 0.75), (GREEN, "Ala_Idris", 0.75), (BLUE, "Buzgulu", 0.75), (BLACK, "Dimnit", 0.6)],
)
def test_each_colour_has_its_class(tiny_export, colour, label, probability):
    network = load_network(tiny_export, "onnx_int8", WorkerSettings(), "cpu")
    outputs = network(np.full((1, SIDE, SIDE, 3), colour, np.uint8))
    (computed,) = outputs.probabilities
    assert outputs.ood_scores is None
    assert CLASSES[int(computed.argmax())] == label
    assert computed.max() == pytest.approx(probability)
    assert computed == pytest.approx(probabilities(colour))
