import builtins

import numpy as np
import pytest
import torch

from vinegrape_handler import networks
from vinegrape_handler.classifier import Classifier
from vinegrape_handler.decode import Limits
from vinegrape_handler.errors import SettingError
from vinegrape_handler.metadata import SELF_CHECK_FOLDER, Metadata
from vinegrape_handler.networks import load_network
from vinegrape_handler.settings import WorkerSettings
from vinegrape_handler.weights import BACKENDS, WEIGHTS_FILES, available_backends, choose_backend

DEVICES = ["cpu", *(["cuda:0"] if torch.cuda.is_available() else [])]


@pytest.fixture(scope="module")
def images(export) -> np.ndarray:
    """Noise of several strengths, uint8 [5,S,S,3]."""
    side = Metadata.read(export).input_size
    rng = np.random.default_rng(0)
    return np.stack([rng.integers(0, top, (side, side, 3), np.uint8, endpoint=True) for top in (0, 30, 90, 200, 255)])


def load(export, backend, device="cpu", **settings) -> networks.Network:
    return load_network(export, backend, WorkerSettings(**settings), device)


# What there is, and which is taken


def test_available(export, tmp_path):
    assert available_backends(export) == BACKENDS
    assert available_backends(tmp_path) == ()
    (tmp_path / WEIGHTS_FILES["torchscript"]).touch()
    assert available_backends(tmp_path) == ("torchscript",)


@pytest.mark.parametrize(
    ("held", "on_gpu", "chosen"),
    [
        (("onnx_int8", "onnx_fp32", "torchscript"), False, "onnx_int8"),
        (("onnx_int8", "onnx_fp32", "torchscript"), True, "torchscript"),
        (("onnx_fp32", "torchscript"), False, "onnx_fp32"),
        (("torchscript",), False, "torchscript"),
        (("onnx_int8",), True, "onnx_int8"),
    ],
)
def test_auto(held, on_gpu, chosen):
    assert choose_backend("auto", held, on_gpu) == chosen


@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.parametrize("wanted", BACKENDS)
def test_a_wanted_backend_is_taken(wanted, on_gpu):
    assert choose_backend(wanted, BACKENDS, on_gpu) == wanted


def test_missing_weights_say_which_there_are():
    with pytest.raises(SettingError, match="'onnx_fp32', but the archive holds the weights of: onnx_int8, torchscript"):
        choose_backend("onnx_fp32", ("onnx_int8", "torchscript"), on_gpu=False)


@pytest.mark.parametrize("wanted", ["auto", "onnx_int8"])
def test_no_weights_at_all(wanted):
    with pytest.raises(SettingError, match="holds the weights of: none"):
        choose_backend(wanted, (), on_gpu=False)


# What they answer


@pytest.mark.parametrize("backend", BACKENDS)
def test_probabilities_of_every_image(export, images, backend):
    probabilities = load(export, backend)(images)
    assert probabilities.shape == (5, len(Metadata.read(export).classes))
    assert probabilities.dtype == np.float32
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_torchscript_agrees_with_onnx(export, images, device):
    expected = load(export, "onnx_fp32")(images)
    assert np.ptp(expected, axis=0).max() > 0.01  # the images have different answers, or this proves nothing
    tolerance = 1e-4 if device == "cpu" else 1e-2  # a GPU multiplies in another order and precision
    np.testing.assert_allclose(load(export, "torchscript", device)(images), expected, atol=tolerance)


def test_int8_agrees_with_fp32(export):
    """On drawn leaves, which are what it was calibrated for."""
    answers = {}
    for backend in ("onnx_int8", "onnx_fp32"):
        classifier = Classifier(Metadata.read(export), load(export, backend), Limits.of(WorkerSettings()))
        pictures = sorted((export / SELF_CHECK_FOLDER).iterdir())
        answers[backend] = np.stack(classifier.classify([picture.read_bytes() for picture in pictures]))
    np.testing.assert_allclose(answers["onnx_int8"], answers["onnx_fp32"], atol=0.1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_image_has_the_same_answer_alone_and_in_a_batch(export, images, backend):
    network = load(export, backend)
    alone = np.concatenate([network(image[None]) for image in images])
    np.testing.assert_allclose(network(images), alone, atol=1e-3 if backend == "onnx_int8" else 1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_threads_do_not_change_the_answer(export, images, backend):
    np.testing.assert_allclose(load(export, backend, threads=2)(images), load(export, backend)(images), atol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_half_precision_is_close(export, images, device):
    """Also on a CPU, where no setting allows it for its slowness."""
    half = load(export, "torchscript", device, precision="fp16")(images)
    np.testing.assert_allclose(half, load(export, "onnx_fp32")(images), atol=2e-2)


# What cannot work here


def test_onnx_on_a_gpu_without_onnxruntime_gpu(export, monkeypatch):
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(SettingError, match="the installed onnxruntime has no CUDA"):
        load(export, "onnx_int8", "cuda:0")


def test_torchscript_on_a_gpu_that_is_not_there(export, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingError, match=r"finds no GPU\. Set device to cpu"):
        load(export, "torchscript", "cuda:0")


def test_torchscript_without_torch(export, monkeypatch):
    imports = builtins.__import__

    def without_torch(name, *arguments, **options):
        if name == "torch":
            raise ImportError(name)
        return imports(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    with pytest.raises(SettingError, match=r"pip install 'vinegrape\[torchscript\]'"):
        load(export, "torchscript")
