"""The export of a trained network, and the parity check that guards it."""

import shutil

import numpy as np
import onnx
import pytest
import torch

from vinegrape_handler.images.decode import Limits, decode
from vinegrape_handler.images.resize import resize
from vinegrape_handler.metadata import Metadata
from vinegrape_handler.networks import load_network
from vinegrape_handler.settings import WorkerSettings
from vinegrape_handler.weights import BACKENDS, WEIGHTS_FILES
from vinegrape_training.errors import DataError, ExportError, ParityError
from vinegrape_training.export import export as export_module
from vinegrape_training.export import weights
from vinegrape_training.export.export import export_run
from vinegrape_training.export.graph import ServingGraph
from vinegrape_training.export.parity import ParityLimits
from vinegrape_training.fit.run import Run


@pytest.fixture(scope="module")
def images(drawn):
    """The run's images, decoded and resized as in the service: uint8 [50, 32, 32, 3]."""
    limits = Limits.of(WorkerSettings())
    paths = sorted(drawn.glob("*/*.png"))
    return np.stack([resize(decode(path.read_bytes(), limits, 32), 32, "bicubic") for path in paths])


@pytest.fixture(scope="module")
def eager(run, images):
    """Probabilities of the trained model, computed without the code of the export."""
    trained = Run.read(run)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    normalised = (pixels - torch.tensor(trained.mean).view(3, 1, 1)) / torch.tensor(trained.std).view(3, 1, 1)
    with torch.no_grad():
        return torch.softmax(trained.load_model()(normalised) / trained.temperature, dim=1).numpy()


@pytest.fixture
def weights_are_copied(export, monkeypatch):
    """Copy the weights of the finished export where `export_run` would write new ones."""

    def copy_weights(graph, run, dataset, images, folder):
        for name in WEIGHTS_FILES.values():
            shutil.copy(export / name, folder)

    monkeypatch.setattr(export_module, "write_weights", copy_weights)


@pytest.mark.parametrize("backend", ["onnx_fp32", "torchscript"])
@pytest.mark.parametrize("batch_size", [1, 3, 8, 50])
def test_fp32_files_compute_the_probabilities_of_the_trained_model(export, images, eager, backend, batch_size):
    network = load_network(export, backend, WorkerSettings(), "cpu")
    probabilities = np.concatenate(
        [network(images[i : i + batch_size]).probabilities for i in range(0, 50, batch_size)]
    )
    np.testing.assert_allclose(probabilities, eager, atol=1e-4)
    assert (probabilities.argmax(1) == eager.argmax(1)).all()


def test_int8_agrees_on_most_images_and_does_not_depend_on_the_batch(export, images, eager):
    network = load_network(export, "onnx_int8", WorkerSettings(), "cpu")
    batched = network(images).probabilities
    np.testing.assert_allclose(
        np.concatenate([network(image[np.newaxis]).probabilities for image in images]), batched, atol=1e-3
    )
    assert (batched.argmax(1) == eager.argmax(1)).mean() >= 0.8
    np.testing.assert_allclose(batched.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_activation_maps_of_every_file_explain_its_probabilities(export, run, images, backend):
    trained = Run.read(run)
    bias = trained.load_model().get_classifier().bias.detach().numpy()
    outputs = load_network(export, backend, WorkerSettings(), "cpu")(images)
    assert outputs.activation_maps.shape == (50, 5, 2, 2)
    logits = torch.from_numpy((outputs.activation_maps.mean(axis=(2, 3)) + bias) / trained.temperature)
    np.testing.assert_allclose(torch.softmax(logits, dim=1).numpy(), outputs.probabilities, atol=1e-4)


def test_the_int8_file_holds_int8_weights_with_one_scale_per_channel(export):
    graph = onnx.load(export / WEIGHTS_FILES["onnx_int8"]).graph
    int8_weights = [tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    assert any(len(tensor.dims) == 4 for tensor in int8_weights)
    scales = {node.input[1] for node in graph.node if node.op_type == "DequantizeLinear"}
    assert any(len(tensor.dims) == 1 and tensor.dims[0] > 1 for tensor in graph.initializer if tensor.name in scales)


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_files_contain_no_paths_of_the_exporting_machine(export, backend):
    content = (export / WEIGHTS_FILES[backend]).read_bytes()
    for path in (b"site-packages", b"/home/", b"/tmp/"):
        assert path not in content


def test_the_metadata_describes_the_run(export, run):
    trained, metadata = Run.read(run), Metadata.read(export)
    assert metadata.classes == ("Ak", "Ala_Idris", "Buzgulu", "Dimnit", "Nazli")
    assert (metadata.architecture, metadata.input_size) == ("small_cnn", 32)
    assert metadata.data_digest == trained.data_digest
    assert metadata.temperature == trained.temperature
    assert metadata.metrics["train_images"] + metadata.metrics["test_images"] < 50
    assert trained.metrics.items() <= metadata.metrics.items()
    assert 0 <= metadata.metrics["test_accuracy_onnx_int8"] <= 1
    assert metadata.metrics["parity_onnx_fp32_agreement"] == 1
    assert len(metadata.self_check) == 5


@pytest.mark.usefixtures("weights_are_copied")
def test_a_failed_parity_check_writes_nothing(run, tmp_path):
    with pytest.raises(ParityError, match=r"onnx_fp32: probabilities differ"):
        export_run(run, tmp_path / "export", limits=ParityLimits(fp32_difference=-1))
    assert not (tmp_path / "export").exists()


@pytest.mark.usefixtures("weights_are_copied")
def test_a_failed_parity_check_keeps_an_earlier_export(run, tmp_path):
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "metadata.json").write_text("kept")
    with pytest.raises(ParityError):
        export_run(run, tmp_path / "export", limits=ParityLimits(int8_agreement=1.1))
    assert (tmp_path / "export" / "metadata.json").read_text() == "kept"


def test_a_file_with_another_normalisation_fails_the_parity_check(export, run, tmp_path, monkeypatch):
    def write_wrong_torchscript(graph, run, dataset, images, folder):
        for name in WEIGHTS_FILES.values():
            shutil.copy(export / name, folder)
        wrong = ServingGraph(graph.network, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), temperature=1.0).eval()
        weights.write_torchscript(wrong, run.input_size, folder / WEIGHTS_FILES["torchscript"])

    monkeypatch.setattr(export_module, "write_weights", write_wrong_torchscript)
    with pytest.raises(ParityError, match="torchscript"):
        export_run(run, tmp_path / "export")


def test_a_folder_that_is_no_export_is_not_replaced(run):
    with pytest.raises(ExportError, match="exists and is not an export"):
        export_run(run, run)
    assert (run / "run.json").is_file()


def test_the_metadata_names_the_origin_of_weights_and_images(export):
    metadata = Metadata.read(export)
    assert metadata.initial_weights == "none"
    assert metadata.metrics["known_images"] == 0


def test_other_images_than_those_of_the_run_are_refused(run, drawn, tmp_path):
    shutil.copytree(drawn, tmp_path / "other")
    next((tmp_path / "other").glob("*/*.png")).unlink()
    with pytest.raises(DataError, match="--data"):
        export_run(run, tmp_path / "export", data_dir=tmp_path / "other")
