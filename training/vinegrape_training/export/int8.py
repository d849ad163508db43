"""Quantise an ONNX file to int8."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnxruntime import InferenceSession, SessionOptions
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxscript.rewriter import MatchResult, RewriteRuleClassBase, rewrite

_CORRECTION_IMAGES = 25  # all of them are in memory at once, and more change the corrections little

_OPERATORS = ["Conv", "Gemm", "MatMul", "Add", "Clip", "Relu", "GlobalAveragePool", "MaxPool"]
_LAYERS = ("Conv", "Gemm", "MatMul")

_PIXELS = "pixels"
_PIXELS_UNCHANGED = {_PIXELS: [{"scale": np.array(1, np.float32), "zero_point": np.array(0, np.uint8)}]}


def write_int8(onnx_path: Path, calibration: NDArray[np.uint8], path: Path, *, correct_biases: bool = True) -> None:
    """Quantise an ONNX file statically: int8 weights per channel, uint8 activations.

    The first convolution reads the pixels as they are: its weights and bias contain the normalisation. The last layer,
    the temperature and the softmax stay float, because they take almost no time and determine the outputs.

    Weights use 7 of their 8 bits. Processors without VNNI add pairs of products in 16 bits, which overflows with 8-bit
    weights, and the file must give the same result on every processor.

    Args:
        onnx_path: a file that `write_onnx` wrote.
        calibration: uint8 [N, S, S, 3]; their activations set the ranges. Activations outside the ranges are cut off,
            so these images must be as varied as those that the network is for.
        path: of the file to write.
        correct_biases: whether to correct the biases (`_correct_biases`); only a measurement of the effect does not.
    """
    with tempfile.TemporaryDirectory() as folder:
        float_path, int8_path = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        quant_pre_process(onnx_path, float_path, skip_symbolic_shape=True)
        model = ir.load(float_path)
        rewrite(model, [FoldNormalisation.rule()])
        ir.save(model, float_path)
        quantize_static(
            float_path,
            int8_path,
            _Calibration(model.graph.inputs[0].name or "", calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_OPERATORS,
            nodes_to_exclude=_float_nodes(model.graph),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"TensorQuantOverrides": _PIXELS_UNCHANGED},
        )
        int8 = ir.load(int8_path)
        rewrite(int8, [ReadPixels.rule()])
        if correct_biases:
            step = -(-len(calibration) // _CORRECTION_IMAGES)
            _correct_biases(int8, model, calibration[::step])
    proto = ir.to_proto(int8)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)


class FoldNormalisation(RewriteRuleClassBase):
    """Let the first convolution read pixels, 0 to 255: its weights and bias then contain the normalisation.

    The convolution padded the normalised image with zeros, and zero means the mean colour. So the image gets a border
    of this colour instead. The colour is rounded to whole numbers, as all pixels are.
    """

    def pattern(self, op: Any, images: Any, scale: Any, offset: Any, weight: Any, bias: Any) -> Any:
        """Match the beginning of a `ServingGraph` whose network begins with a convolution."""
        normalised = op.Add(op.Mul(op.Cast(op.Transpose(images)), scale), offset)
        return op.Conv(normalised, weight, bias, _outputs=["convolved"])

    def check(self, _: Any, convolved: ir.Value, weight: ir.Value, bias: ir.Value, **__: ir.Value) -> MatchResult:
        """Accept one group of constant weights and explicit padding."""
        attributes = _node(convolved).attributes
        constant = weight.const_value is not None and bias.const_value is not None
        explicit = attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
        result = MatchResult()
        return result if constant and explicit and attributes.get_int("group", 1) == 1 else result.fail("unusual")

    def rewrite(
        self,
        op: Any,
        images: ir.Value,
        scale: ir.Value,
        offset: ir.Value,
        weight: ir.Value,
        bias: ir.Value,
        convolved: ir.Value,
    ) -> Any:
        """Return the convolution of the pixels."""
        convolution = _node(convolved)
        scales, offsets = _array(scale).reshape(3, 1, 1), _array(offset).reshape(3, 1, 1)
        weights = _array(weight)  # [C, 3, kernel, kernel]
        biases = _array(bias) + (weights * offsets).sum(axis=(1, 2, 3))
        pads = convolution.attributes.get_ints("pads", (0, 0, 0, 0))
        bordered = _add_border(op, images, np.rint(-offsets / scales).astype(np.uint8).reshape(3), pads)
        channels_first = op.Transpose(bordered, perm=[0, 3, 1, 2])
        pixels = op.Cast(channels_first, to=ir.DataType.FLOAT, _outputs=[_PIXELS])
        return op.Conv(
            pixels,
            op.initializer(ir.tensor(weights * scales), name=weight.name),
            op.initializer(ir.tensor(biases), name=bias.name),
            _name=convolution.name,
            **{**convolution.attributes, "pads": ir.AttrInt64s("pads", [0, 0, 0, 0])},
        )


def _add_border(op: Any, images: ir.Value, colour: NDArray[np.uint8], pads: Sequence[int]) -> Any:
    """Add rows and columns of one colour.

    Args:
        op: builds the nodes.
        images: uint8 [N, S, S, 3].
        colour: uint8 [3].
        pads: number of pixels at the top, left, bottom and right.
    """
    top, left, bottom, right = pads
    side = int(images.shape[1])  # type: ignore[index, arg-type]  # only the batch size is not fixed
    count = op.Concat(op.Shape(images, start=0, end=1), op.Constant(value_ints=[1, 1, 1]), axis=0)

    def strip(height: int, width: int) -> Any:
        pixels = np.broadcast_to(colour, (1, height, width, 3)).copy()
        return op.Expand(op.Constant(value=ir.tensor(pixels)), count)

    height = side + top + bottom
    rows = [strip(top, side)] if top else [], [strip(bottom, side)] if bottom else []
    columns = [strip(height, left)] if left else [], [strip(height, right)] if right else []
    tall = op.Concat(*rows[0], images, *rows[1], axis=1)
    return op.Concat(*columns[0], tall, *columns[1], axis=2)


class ReadPixels(RewriteRuleClassBase):
    """Let the first quantised convolution read the uint8 pixels, which need no quantisation."""

    def pattern(self, op: Any, pixels: Any, scale: Any, zero_point: Any) -> Any:
        """Match the quantised beginning that `FoldNormalisation` wrote."""
        quantised = op.QuantizeLinear(op.Cast(pixels), scale, zero_point)
        return op.DequantizeLinear(quantised, scale, zero_point)

    def check(self, _: Any, scale: ir.Value, zero_point: ir.Value, **__: ir.Value) -> MatchResult:
        """Accept pixels that are quantised to themselves."""
        same = scale.const_value is not None and _array(scale) == 1 and _array(zero_point) == 0
        return MatchResult() if same else MatchResult().fail("not the pixels")

    def rewrite(self, op: Any, pixels: ir.Value, scale: ir.Value, zero_point: ir.Value, **_: ir.Value) -> Any:
        """Return the pixels as the convolution's input."""
        return op.DequantizeLinear(pixels, scale, zero_point)


def _float_nodes(graph: ir.Graph) -> list[str]:
    """Return the names of the nodes that stay float: those before the first layer, and the last layer with the rest."""
    nodes = list(graph)
    layers = [index for index, node in enumerate(nodes) if node.op_type in _LAYERS]
    return [node.name or "" for node in nodes[: layers[0]] + nodes[layers[-1] :]]


def _correct_biases(int8: ir.Model, model: ir.Model, images: NDArray[np.uint8]) -> None:
    """Add to the bias of each quantised convolution what its output lacks on average.

    Rounding shifts the mean of each channel a little, and the following layers amplify this: on a leaf before a white
    background the sums of the first filters cancel over white. (Nagel et al. 2019, "Data-Free Quantization Through
    Weight Equalization and Bias Correction", section 4.2; here with images.)

    The correction of a layer depends on those before it. One run of a copy finds all of them: it shifts the output of
    each convolution to the mean of the float network before the next layer reads it.

    Args:
        int8: the quantised model, whose biases are changed.
        model: the float model. Its convolutions have the same names.
        images: uint8 [N, S, S, 3].
    """
    wanted = _channel_means(model, images)
    present = _channel_means(int8, images, wanted)
    for name, (bias, scale) in _quantised_biases(int8.graph).items():
        steps = np.rint((wanted[name] - present[name]) / _array(scale))
        bias.const_value = ir.tensor((_array(bias) + steps).astype(np.int32), name=bias.name)


def _channel_means(
    model: ir.Model, images: NDArray[np.uint8], wanted: Mapping[str, NDArray[np.float32]] | None = None
) -> dict[str, NDArray[np.float32]]:
    """Return the mean of each channel of each convolution's output.

    Args:
        model: stays as it is.
        images: uint8 [N, S, S, 3].
        wanted: means, float32 [C], by the name of the convolution. The outputs of these are shifted to them after the
            measurement, before the next layer reads them.

    Returns:
        float32 [C] by the name of the convolution.
    """
    model = model.clone()
    graph = model.graph
    graph.outputs.clear()
    convolutions = [node for node in graph if node.op_type == "Conv"]
    for node in convolutions:
        output = node.outputs[0]
        uses = tuple(output.uses())
        tape = ir.tape.Tape()
        axes = tape.op("Constant", [], {"value_ints": [0, 2, 3]})
        mean = tape.op("ReduceMean", [output, axes])  # [1, C, 1, 1]
        mean.dtype = ir.DataType.FLOAT
        graph.outputs.append(mean)
        if wanted is not None and node.name in wanted:
            target = tape.op("Constant", [], {"value": ir.tensor(wanted[node.name].reshape(1, -1, 1, 1))})
            shifted = tape.op("Add", [output, tape.op("Sub", [target, mean])])
            for use in uses:
                use.node.replace_input_with(use.idx, shifted)
        graph.insert_after(node, tape.nodes)
    options = SessionOptions()
    options.enable_cpu_mem_arena = False  # each activation is freed after its last use
    session = InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    means = session.run(None, {graph.inputs[0].name: images})
    return {node.name or "": mean.reshape(-1) for node, mean in zip(convolutions, means, strict=True)}


def _quantised_biases(graph: ir.Graph) -> dict[str, tuple[ir.Value, ir.Value]]:
    """Return the int32 bias and its scale of each quantised convolution, by the name of the convolution."""
    biases = {}
    for node in graph:
        bias = node.inputs[2] if node.op_type == "Conv" and len(node.inputs) > 2 else None
        dequantise = bias.producer() if bias else None
        if dequantise:
            quantised, scale, *_ = dequantise.inputs
            biases[node.name or ""] = quantised, scale
    return biases


def _node(value: ir.Value) -> ir.Node:
    node = value.producer()
    assert node is not None
    return node


def _array(value: ir.Value) -> NDArray[Any]:
    assert value.const_value is not None
    return value.const_value.numpy()


class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, input_name: str, images: NDArray[np.uint8]) -> None:
        self._name = input_name
        self._images: Iterator[NDArray[np.uint8]] = iter(images)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        image = next(self._images, None)
        return None if image is None else {self._name: image[np.newaxis]}
