"""Write the serving graph in every file format that can be served."""

from __future__ import annotations

import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from vinegrape_handler.weights import WEIGHTS_FILES
from vinegrape_training.data.dataset import Dataset
from vinegrape_training.export.graph import ServingGraph
from vinegrape_training.fit.run import Run

_CALIBRATION_IMAGES = 200  # activation ranges hardly change beyond 100 images

_INPUT = "images"

# The first quarter of the convolutions stays float. `vinegrape bench int8` measures speed and error of other shares.
FLOAT_SHARE = 0.25

# Normalisation, temperature and softmax stay float: they take almost no time and determine the probabilities
_QUANTISED_OPERATORS = ["Conv", "Gemm", "MatMul", "Add", "Clip", "Relu", "GlobalAveragePool", "MaxPool"]
_ACTIVATIONS = ("Clip", "Relu")


def write_weights(graph: ServingGraph, run: Run, dataset: Dataset, images: NDArray[np.uint8], folder: Path) -> None:
    """Write one file per format.

    Args:
        graph: of the run's network, in eval mode.
        run: its training images calibrate the int8 file.
        dataset: the run's images.
        images: all images of the data set, uint8 [N, S, S, 3].
        folder: to write to.
    """
    side = run.input_size
    calibration = images[calibration_images(run, dataset)]
    write_torchscript(graph, side, folder / WEIGHTS_FILES["torchscript"])
    write_onnx(graph, side, folder / WEIGHTS_FILES["onnx_fp32"])
    write_int8(folder / WEIGHTS_FILES["onnx_fp32"], calibration, folder / WEIGHTS_FILES["onnx_int8"])


def calibration_images(run: Run, dataset: Dataset) -> list[int]:
    """Return the indices of the images that calibrate int8: training images, spread evenly over all classes."""
    return dataset.indices_of(_spread(run.split.train, _CALIBRATION_IMAGES))


def write_torchscript(graph: ServingGraph, side: int, path: Path) -> None:
    """Trace the graph for any batch size, and write it as TorchScript.

    The debug records are left out, because they contain paths of the machine that traces.

    Args:
        graph: in eval mode, on the CPU.
        side: width and height of its input in pixels.
        path: of the file to write.
    """
    with torch.no_grad(), _quiet():
        # strict=False: the result is a dictionary
        traced = torch.jit.trace(graph, _example(side), strict=False)  # type: ignore[no-untyped-call]
    with tempfile.TemporaryDirectory() as folder:
        traced_path = Path(folder) / path.name
        traced.save(traced_path)
        with zipfile.ZipFile(traced_path) as source, zipfile.ZipFile(path, "w") as target:
            for item in source.infolist():
                if not item.filename.endswith(".debug_pkl"):
                    target.writestr(zipfile.ZipInfo(item.filename), source.read(item))


def write_onnx(graph: ServingGraph, side: int, path: Path) -> None:
    """Export the graph as float32 ONNX for any batch size; arguments as for `write_torchscript`."""
    batch = torch.export.Dim("batch", min=1)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        exported = Path(folder) / path.name
        torch.onnx.export(
            graph,
            (_example(side),),
            exported,
            dynamo=True,
            input_names=[_INPUT],
            output_names=graph.outputs,
            dynamic_shapes=({0: batch},),
            external_data=False,
            verbose=False,
        )
        model = onnx.load(exported)
    _remove_origin(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def write_int8(onnx_path: Path, calibration: NDArray[np.uint8], path: Path, float_share: float = FLOAT_SHARE) -> None:
    """Quantise an ONNX file statically: int8 weights per channel, uint8 activations.

    Weights use 7 of their 8 bits. Processors without VNNI add pairs of products in 16 bits, which overflows with 8-bit
    weights, and the file must give the same result on every processor.

    Args:
        onnx_path: a file that `write_onnx` wrote.
        calibration: uint8 [N, S, S, 3], training images; their activations set the ranges.
        path: of the file to write.
        float_share: share of the convolutions, counted from the input, that stays float: 0 for none, otherwise at
            least two convolutions.
    """
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(onnx_path, prepared)
        quantize_static(
            prepared,
            path,
            _Calibration(calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_QUANTISED_OPERATORS,
            nodes_to_exclude=_first_blocks(onnx.load(prepared), float_share),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


def _first_blocks(model: onnx.ModelProto, share: float) -> list[str]:
    """Return the names of the nodes that stay float.

    Among the first `share` of the convolutions, the last one without an activation is the end: all nodes up to it stay
    float. Such a convolution ends a block, and has few channels to convert between float and int8.

    The images have a white background. Over white, the sums of the first filters must cancel exactly, and the
    depthwise convolutions after them amplify any rounding error. Most of MobileNetV2's int8 error arises here
    (docs/model.md).
    """
    nodes = list(model.graph.node)
    activated = {node.input[0] for node in nodes if node.op_type in _ACTIVATIONS}
    convolutions = [index for index, node in enumerate(nodes) if node.op_type == "Conv"]
    # at least two: the first filters, and the convolution that amplifies their error
    first = convolutions[: max(2, int(share * len(convolutions)))] if share else []
    ends = [index for index in first if nodes[index].output[0] not in activated] or first
    return [node.name for node in nodes[: ends[-1] + 1]] if ends else []


class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._images: Iterator[NDArray[np.uint8]] = iter(images)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        image = next(self._images, None)
        return None if image is None else {_INPUT: image[np.newaxis]}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence deprecation warnings of torch's exporters; the user cannot act on them."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        yield


def _example(side: int) -> torch.Tensor:
    return torch.zeros(2, side, side, 3, dtype=torch.uint8)  # a tracer may treat a batch size of 1 as a constant


def _remove_origin(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes, which contain paths and source lines of the machine that exports."""
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")


def _spread(paths: Sequence[str], count: int) -> list[str]:
    """Choose at most `count` paths at equal distances; sorted paths cover all classes evenly."""
    return [paths[i] for i in np.linspace(0, len(paths) - 1, min(count, len(paths))).astype(int)]
