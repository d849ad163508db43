import numpy as np
import onnx
import pytest
import torch

from vinegrape_handler.decode import Limits, decode
from vinegrape_handler.metadata import Metadata
from vinegrape_handler.networks import load_network
from vinegrape_handler.resize import resize
from vinegrape_handler.settings import WorkerSettings
from vinegrape_handler.weights import BACKENDS, WEIGHTS_FILES
from vinegrape_training.errors import DataError, ExportError, ParityError
from vinegrape_training.export.export import export as make_export
from vinegrape_training.export.graph import ServingGraph
from vinegrape_training.export.parity import ParityLimits
from vinegrape_training.fit.run import Run


@pytest.fixture(scope="module")
def images(drawn):
    """Decoded images of the run's data, as they are served: uint8 [50,32,32,3]."""
    limits = Limits.of(WorkerSettings())
    paths = sorted(drawn.glob("*/*.png"))
    return np.stack([resize(decode(path.read_bytes(), limits, 32), 32, "bicubic") for path in paths])


@pytest.fixture(scope="module")
def eager(run, images):
    """The trained model's probabilities, computed apart from the export."""
    made = Run.read(run)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    normalised = (pixels - torch.tensor(made.mean).view(3, 1, 1)) / torch.tensor(made.std).view(3, 1, 1)
    with torch.no_grad():
        return torch.softmax(made.load_model()(normalised) / made.temperature, dim=1).numpy()


@pytest.mark.parametrize("backend", ["onnx_fp32", "torchscript"])
@pytest.mark.parametrize("batch_size", [1, 3, 8, 50])
def test_fp32_files_compute_what_the_trained_model_does(export, images, eager, backend, batch_size):
    network = load_network(export, backend, WorkerSettings(), "cpu")
    answers = np.concatenate([network(images[i : i + batch_size]) for i in range(0, 50, batch_size)])
    np.testing.assert_allclose(answers, eager, atol=1e-4)
    assert (answers.argmax(1) == eager.argmax(1)).all()


def test_int8_mostly_agrees_and_does_not_depend_on_the_batch(export, images, eager):
    network = load_network(export, "onnx_int8", WorkerSettings(), "cpu")
    together = network(images)
    np.testing.assert_allclose(np.concatenate([network(image[np.newaxis]) for image in images]), together, atol=1e-3)
    assert (together.argmax(1) == eager.argmax(1)).mean() >= 0.8
    np.testing.assert_allclose(together.sum(1), 1, atol=1e-5)


def test_int8_really_holds_int8_weights_by_channel(export):
    graph = onnx.load(export / WEIGHTS_FILES["onnx_int8"]).graph
    weights = [tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    assert any(len(tensor.dims) == 4 for tensor in weights)
    scales = {node.input[1] for node in graph.node if node.op_type == "DequantizeLinear"}
    assert any(len(tensor.dims) == 1 and tensor.dims[0] > 1 for tensor in graph.initializer if tensor.name in scales)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_file_names_a_path_of_the_machine_that_made_it(export, backend):
    content = (export / WEIGHTS_FILES[backend]).read_bytes()
    for path in (b"site-packages", b"/home/", b"/tmp/"):
        assert path not in content


def test_the_metadata_says_what_the_run_was(export, run):
    made, metadata = Run.read(run), Metadata.read(export)
    assert metadata.classes == ("Ak", "Ala_Idris", "Buzgulu", "Dimnit", "Nazli")
    assert (metadata.architecture, metadata.input_size) == ("small_cnn", 32)
    assert metadata.data_digest == made.data_digest
    assert metadata.temperature == made.temperature
    assert metadata.metrics["train_images"] + metadata.metrics["test_images"] < 50
    assert metadata.metrics["parity_onnx_fp32_agreement"] == 1
    assert len(metadata.self_check) == 5


def test_a_failed_gate_writes_nothing(run, tmp_path):
    with pytest.raises(ParityError, match=r"onnx_fp32: probabilities differ"):
        make_export(run, tmp_path / "export", limits=ParityLimits(fp32_difference=-1))
    assert not (tmp_path / "export").exists()


def test_a_failed_gate_leaves_an_earlier_export_alone(run, tmp_path):
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "metadata.json").write_text("kept")
    with pytest.raises(ParityError):
        make_export(run, tmp_path / "export", limits=ParityLimits(int8_agreement=1.1))
    assert (tmp_path / "export" / "metadata.json").read_text() == "kept"


def test_a_wrong_graph_fails_the_gate(run, tmp_path, monkeypatch):
    """The defect that the gate is for: what is written is not what was trained."""
    from vinegrape_training.export import weights

    write = weights.write_torchscript

    def write_colder(graph, side, path):
        write(ServingGraph(graph.network, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), temperature=1.0).eval(), side, path)

    monkeypatch.setattr(weights, "write_torchscript", write_colder)
    with pytest.raises(ParityError, match="torchscript"):
        make_export(run, tmp_path / "export")


def test_a_folder_that_is_no_export_is_never_replaced(run):
    with pytest.raises(ExportError, match="exists and is not an export"):
        make_export(run, run)
    assert (run / "run.json").is_file()


def test_the_metadata_says_where_the_weights_and_images_came_from(export):
    metadata = Metadata.read(export)
    assert metadata.initial_weights == "none"
    assert metadata.metrics["known_images"] == 0


def test_other_images_than_the_run_saw_are_refused(run, drawn, tmp_path):
    import shutil

    shutil.copytree(drawn, tmp_path / "other")
    next((tmp_path / "other").glob("*/*.png")).unlink()
    with pytest.raises(DataError, match="--data"):
        make_export(run, tmp_path / "export", data_dir=tmp_path / "other")
