"""`run_self_check` with networks that return fixed probabilities. METADATA records 0.25 and 0.75 for its image."""

import dataclasses

import numpy as np
import pytest

from tests.support.images import encode, gradient
from tests.support.metadata import METADATA
from vinegrape_handler.classifier import Classifier
from vinegrape_handler.errors import ArchiveError
from vinegrape_handler.images.decode import Limits
from vinegrape_handler.networks import Outputs
from vinegrape_handler.self_check import run_self_check
from vinegrape_handler.settings import WorkerSettings


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "0.png").write_bytes(encode(gradient(), "PNG"))
    return tmp_path


def classifier(first, second, metadata=METADATA) -> Classifier:
    """A classifier that gives every image these two probabilities."""

    def network(batch) -> Outputs:
        return Outputs(np.array([[first, second]] * len(batch), np.float32))

    return Classifier(metadata, network, Limits.of(WorkerSettings()))


@pytest.mark.parametrize("first", [0.25, 0.21, 0.29])
def test_probabilities_within_the_tolerance_pass(folder, first):
    run_self_check(classifier(first, 1 - first), folder, "onnx_int8", METADATA.self_check)


@pytest.mark.parametrize(("first", "difference"), [(0.19, "0.060"), (0.75, "0.500"), (np.nan, "nan")])
def test_probabilities_outside_the_tolerance_fail(folder, first, difference):
    """NaN, which overflow in half precision gives, must fail although no comparison with it is true."""
    with pytest.raises(ArchiveError, match=rf"of 0\.png with onnx_int8 is off by {difference}, more than 0\.05"):
        run_self_check(classifier(first, 1 - first), folder, "onnx_int8", METADATA.self_check)


def test_a_broken_image_fails(folder):
    (folder / "0.png").write_bytes(b"no image")
    with pytest.raises(ArchiveError, match=r"self-check image 0\.png failed: This is text\."):
        run_self_check(classifier(0.25, 0.75), folder, "onnx_int8", METADATA.self_check)


def test_a_backend_without_recorded_probabilities_fails(folder):
    with pytest.raises(ArchiveError, match="no probabilities for torchscript"):
        run_self_check(classifier(0.25, 0.75), folder, "torchscript", METADATA.self_check)


def test_a_threshold_needs_a_network_with_ood_scores(folder):
    checked = classifier(0.25, 0.75, dataclasses.replace(METADATA, ood_threshold=0.5))
    with pytest.raises(ArchiveError, match="weights for onnx_int8 compute no ood_score"):
        run_self_check(checked, folder, "onnx_int8", METADATA.self_check)
