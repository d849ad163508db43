import builtins

import numpy as np
import pytest

from tests.support.tiny_archive import BLACK, BLUE, CLASSES, GREEN, RED, SIDE, probabilities, write_export
from vinegrape_handler.classifier import Classifier
from vinegrape_handler.errors import SettingError
from vinegrape_handler.images.decode import Limits
from vinegrape_handler.metadata import SELF_CHECK_FOLDER, Metadata
from vinegrape_handler.networks import Network, load_network
from vinegrape_handler.self_check import run_self_check
from vinegrape_handler.settings import WorkerSettings
from vinegrape_handler.weights import BACKENDS


def load(folder, backend, device="cpu", **settings) -> Network:
    return load_network(folder, backend, WorkerSettings(**settings), device)


def devices() -> list[str]:
    """The CPU and, if torch can use one, the first GPU."""
    import torch

    return ["cpu", *(["cuda:0"] if torch.cuda.is_available() else [])]


# The tiny model, whose probabilities are known


def colours() -> np.ndarray:
    """One image per colour, uint8 [5, S, S, 3]."""
    return np.stack([np.full((SIDE, SIDE, 3), colour, np.uint8) for colour in (RED, GREEN, BLUE, BLACK, (10, 20, 30))])


def assert_known_probabilities(network, tolerance=1e-5):
    images = colours()
    computed = network(images).probabilities
    assert computed.shape == (5, len(CLASSES))
    assert computed.dtype == np.float32
    np.testing.assert_allclose(computed, [probabilities(image[0, 0].tolist()) for image in images], atol=tolerance)


@pytest.mark.parametrize("backend", ["onnx_int8", "onnx_fp32"])
@pytest.mark.parametrize("threads", [1, 2])
def test_onnx_computes_the_known_probabilities(tiny_export, backend, threads):
    assert_known_probabilities(load(tiny_export, backend, threads=threads))


def assert_known_ood_scores(network, tolerance=1e-5):
    images = colours()
    assert_known_probabilities(network, tolerance)
    scores = network(images).ood_scores
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, images[:, 0, 0, 2] / 255, atol=tolerance)


def test_onnx_computes_ood_scores(tmp_path):
    write_export(tmp_path / "export", ood_threshold=0.5)
    assert_known_ood_scores(load(tmp_path / "export", "onnx_int8"))


@pytest.mark.xdist_group("torch")
def test_torchscript_computes_ood_scores(tmp_path):
    write_export(tmp_path / "export", ["torchscript"], ood_threshold=0.5)
    for device in devices():
        assert_known_ood_scores(load(tmp_path / "export", "torchscript", device), tolerance=1e-4)
        assert_known_ood_scores(load(tmp_path / "export", "torchscript", device, precision="fp16"), tolerance=2e-3)


@pytest.mark.xdist_group("torch")
def test_torchscript_computes_the_known_probabilities(tiny_torch_model):
    for device in devices():
        assert_known_probabilities(load(tiny_torch_model, "torchscript", device), tolerance=1e-4)
        assert_known_probabilities(load(tiny_torch_model, "torchscript", device, precision="fp16"), tolerance=2e-3)


def test_onnx_on_a_gpu_needs_onnxruntime_gpu(tiny_export, monkeypatch):
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(SettingError, match="the installed onnxruntime does not support CUDA"):
        load(tiny_export, "onnx_int8", "cuda:0")


@pytest.mark.xdist_group("torch")
def test_torchscript_on_a_missing_gpu_is_reported(tiny_torch_model, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SettingError, match=r"finds no GPU\. Set device to cpu"):
        load(tiny_torch_model, "torchscript", "cuda:0")


def test_torchscript_without_torch_is_reported(tiny_export, monkeypatch):
    imports = builtins.__import__

    def without_torch(name, *arguments, **options):
        if name == "torch":
            raise ImportError(name)
        return imports(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    with pytest.raises(SettingError, match=r"pip install 'vinegrape\[torchscript\]'"):
        load(tiny_export, "torchscript")


# A trained network, whose int8 weights are really quantised


@pytest.fixture(scope="module")
def images(export) -> np.ndarray:
    """Noise of several strengths, uint8 [5, S, S, 3]."""
    side = Metadata.read(export).input_size
    rng = np.random.default_rng(0)
    return np.stack([rng.integers(0, top, (side, side, 3), np.uint8, endpoint=True) for top in (0, 30, 90, 200, 255)])


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_row_of_probabilities_sums_to_1(export, images, backend):
    computed = load(export, backend)(images).probabilities
    assert computed.shape == (5, len(Metadata.read(export).classes))
    assert computed.dtype == np.float32
    assert (computed >= 0).all()
    np.testing.assert_allclose(computed.sum(1), 1, atol=1e-5)


def test_torchscript_agrees_with_onnx(export, images):
    expected = load(export, "onnx_fp32")(images).probabilities
    assert np.ptp(expected, axis=0).max() > 0.01  # the images have different probabilities, so a mix-up would show
    for device in devices():
        tolerance = 1e-4 if device == "cpu" else 1e-2  # a GPU multiplies in another order and precision
        np.testing.assert_allclose(load(export, "torchscript", device)(images).probabilities, expected, atol=tolerance)


def test_half_precision_is_close(export, images):
    """This includes the CPU, where half precision works but the settings reject it because it is slow."""
    expected = load(export, "onnx_fp32")(images).probabilities
    for device in devices():
        half = load(export, "torchscript", device, precision="fp16")(images).probabilities
        np.testing.assert_allclose(half, expected, atol=2e-2)


def test_int8_agrees_with_fp32(export):
    """The images are drawn leaves, like those that the int8 weights were calibrated with."""
    results = {}
    for backend in ("onnx_int8", "onnx_fp32"):
        classifier = Classifier(Metadata.read(export), load(export, backend), Limits.of(WorkerSettings()))
        files = sorted((export / SELF_CHECK_FOLDER).iterdir())
        results[backend] = np.stack(
            [scores.probabilities for scores in classifier.classify([file.read_bytes() for file in files])]
        )
    np.testing.assert_allclose(results["onnx_int8"], results["onnx_fp32"], atol=0.1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_passes_the_self_check_of_its_export(export, backend):
    metadata = Metadata.read(export)
    classifier = Classifier(metadata, load(export, backend), Limits.of(WorkerSettings()))
    run_self_check(classifier, export / SELF_CHECK_FOLDER, backend, metadata.self_check)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_image_has_the_same_probabilities_alone_and_in_a_batch(export, images, backend):
    network = load(export, backend)
    alone = np.concatenate([network(image[None]).probabilities for image in images])
    np.testing.assert_allclose(network(images).probabilities, alone, atol=1e-3 if backend == "onnx_int8" else 1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_number_of_threads_does_not_change_the_probabilities(export, images, backend):
    one, two = (load(export, backend, threads=threads)(images).probabilities for threads in (1, 2))
    np.testing.assert_allclose(two, one, atol=1e-5)
