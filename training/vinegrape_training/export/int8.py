"""Quantise an ONNX file to int8."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnxruntime import InferenceSession, SessionOptions
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxscript.rewriter import MatchResult, RewriteRuleClassBase, rewrite

_CORRECTION_IMAGES = 25  # they are all in memory at once

_OPERATORS = ["Conv", "Gemm", "MatMul", "Add", "Clip", "Relu", "GlobalAveragePool", "MaxPool"]
_LAYERS = ("Conv", "Gemm", "MatMul")

_PIXELS = "pixels"
_PIXELS_UNCHANGED = {_PIXELS: [{"scale": np.array(1, np.float32), "zero_point": np.array(0, np.uint8)}]}


def write_int8(onnx_path: Path, calibration: NDArray[np.uint8], path: Path, *, correct_biases: bool = True) -> None:
    """Quantise an ONNX file statically: int8 weights per channel, uint8 activations.

    The first convolution reads the pixels as they are: its weights and bias contain the normalisation. The last layer
    and all that follows it stay float, because they take almost no time and determine the outputs.

    Weights use 7 of their 8 bits. Processors without VNNI add pairs of products in 16 bits, which overflows with 8-bit
    weights, and the file must give the same result on every processor.

    Args:
        onnx_path: a file that `write_onnx` wrote.
        calibration: uint8 [N, S, S, 3]; their activations set the ranges. Activations outside the ranges are cut off,
            so these images must be as varied as those that the network is for.
        path: of the file to write.
        correct_biases: whether to correct the biases (`_correct_biases`). False serves to measure the effect.
    """
    with tempfile.TemporaryDirectory() as folder:
        float_path, int8_path = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        # its symbolic shapes serve transformers; it cannot infer those of the activation maps
        quant_pre_process(onnx_path, float_path, skip_symbolic_shape=True)
        model = ir.load(float_path)
        rewrite(model, [FoldNormalisation.rule()])  # type: ignore[no-untyped-call]
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
            extra_options={"TensorQuantOverrides": _PIXELS_UNCHANGED if _has_value(model.graph, _PIXELS) else {}},
        )
        int8 = ir.load(int8_path)
        rewrite(int8, [ReadPixels.rule()])  # type: ignore[no-untyped-call]
        if correct_biases:
            step = -(-len(calibration) // _CORRECTION_IMAGES)
            _correct_biases(int8, model, calibration[::step])
        proto = ir.to_proto(int8)  # reads the weights, so the folder must still exist
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

    def check(self, op: Any, convolved: ir.Value, weight: ir.Value, bias: ir.Value, **_: Any) -> MatchResult:
        """Accept constant weights and explicit padding."""
        constant = weight.const_value is not None and bias.const_value is not None
        explicit = _producer(convolved).attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
        return MatchResult() if constant and explicit else MatchResult().fail("another form of convolution")

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
        convolution = _producer(convolved)
        scales, offsets = _array(scale).reshape(3, 1, 1), _array(offset).reshape(3, 1, 1)
        weights = _array(weight)  # [C, 3, kernel, kernel]
        biases = _array(bias) + (weights * offsets).sum(axis=(1, 2, 3))
        pads = convolution.attributes.get_ints("pads", (0, 0, 0, 0))
        mean_colour = np.rint(-offsets / scales).astype(np.uint8).reshape(3)
        channels_first = op.Transpose(_add_border(op, images, mean_colour, pads), perm=[0, 3, 1, 2])
        return op.Conv(
            op.Cast(channels_first, to=ir.DataType.FLOAT, _outputs=[_PIXELS]),
            op.initializer(ir.tensor(weights * scales), name=weight.name),
            op.initializer(ir.tensor(biases), name=bias.name),
            _name=convolution.name,
            **{**convolution.attributes, "pads": ir.AttrInt64s("pads", [0, 0, 0, 0])},
        )


def _add_border(op: Any, images: ir.Value, colour: NDArray[np.uint8], pads: Sequence[int]) -> Any:
    """Add rows and columns of one colour to uint8 images [N, S, S, 3].

    Args:
        op: builds the nodes.
        images: to add to.
        colour: uint8 [3].
        pads: number of pixels at the top, left, bottom and right.
    """
    top, left, bottom, right = pads
    side: Any = images.shape[1] if images.shape else None  # a number: only the batch size varies
    count = op.Concat(op.Shape(images, start=0, end=1), op.Constant(value_ints=[1, 1, 1]), axis=0)

    def strips(height: int, width: int) -> list[Any]:
        pixels = np.broadcast_to(colour, (1, height, width, 3)).copy()
        return [op.Expand(op.Constant(value=ir.tensor(pixels)), count)] if pixels.size else []

    tall = op.Concat(*strips(top, side), images, *strips(bottom, side), axis=1)
    height = top + side + bottom
    return op.Concat(*strips(height, left), tall, *strips(height, right), axis=2)


class ReadPixels(RewriteRuleClassBase):
    """Let the first quantised convolution read the uint8 pixels themselves."""

    def pattern(self, op: Any, pixels: Any, scale: Any, zero_point: Any) -> Any:
        """Match the quantised beginning of a graph after `FoldNormalisation`."""
        quantised = op.QuantizeLinear(op.Cast(pixels), scale, zero_point)
        return op.DequantizeLinear(quantised, scale, zero_point)

    def check(self, op: Any, scale: ir.Value, zero_point: ir.Value, **_: Any) -> MatchResult:
        """Accept a quantisation that changes nothing."""
        unchanged = scale.const_value is not None and _array(scale) == 1 and _array(zero_point) == 0
        return MatchResult() if unchanged else MatchResult().fail("these are not pixels")

    def rewrite(self, op: Any, pixels: ir.Value, scale: ir.Value, zero_point: ir.Value) -> Any:
        """Return the convolution's input."""
        return op.DequantizeLinear(pixels, scale, zero_point)


def _float_nodes(graph: ir.Graph) -> list[str]:
    """Return the names of the nodes before the first layer, and from the last layer on."""
    nodes = list(graph)
    layers = [index for index, node in enumerate(nodes) if node.op_type in _LAYERS]
    return [node.name or "" for node in (*nodes[: layers[0]], *nodes[layers[-1] :])]


def _correct_biases(int8: ir.Model, model: ir.Model, images: NDArray[np.uint8]) -> None:
    """Shift the biases of the quantised convolutions, so that the means of their outputs are those of the float model.

    Rounding shifts the mean of each channel a little, and the following layers amplify this. The effect is largest over
    a constant background, where the sums of the first filters cancel. (Nagel et al. 2019, "Data-Free Quantization
    Through Weight Equalization and Bias Correction", section 4.2, here with images.)

    The shift of a layer depends on those before it. One run finds all of them, because it shifts the output of each
    convolution before the next layer reads it.

    Args:
        int8: the quantised model. Its biases are changed.
        model: the float model. Its convolutions have the same names.
        images: uint8 [N, S, S, 3].
    """
    wanted = _channel_means(model, images)
    present = _channel_means(int8, images, wanted)
    for node in int8.graph:
        bias = node.inputs[2] if node.op_type == "Conv" and len(node.inputs) > 2 else None
        dequantised = bias.producer() if bias else None
        if dequantised:
            integers, scale, *_ = (value for value in dequantised.inputs if value)
            shift = np.rint((wanted[node.name or ""] - present[node.name or ""]) / _array(scale))
            integers.const_value = ir.tensor((_array(integers) + shift).astype(np.int32), name=integers.name)


def _channel_means(
    model: ir.Model, images: NDArray[np.uint8], shift_to: Mapping[str, NDArray[np.float32]] | None = None
) -> dict[str, NDArray[np.float32]]:
    """Return the mean of each channel of each convolution's output.

    Args:
        model: stays as it is.
        images: uint8 [N, S, S, 3].
        shift_to: means, float32 [C], by the name of the convolution. The outputs are shifted to them, but the means
            before the shift are returned.

    Returns:
        float32 [C] by the name of the convolution.
    """
    model = model.clone()
    graph = model.graph
    convolutions = [node for node in graph if node.op_type == "Conv"]
    graph.outputs.clear()
    for node in convolutions:
        output = node.outputs[0]
        uses = tuple(output.uses())
        tape = ir.tape.Tape()
        mean = tape.op("ReduceMean", [output, tape.op("Constant", [], {"value_ints": [0, 2, 3]})])  # [1, C, 1, 1]
        mean.dtype = ir.DataType.FLOAT
        graph.outputs.append(mean)
        if shift_to:
            target = tape.op("Constant", [], {"value": ir.tensor(shift_to[node.name or ""].reshape(1, -1, 1, 1))})
            shifted = tape.op("Add", [output, tape.op("Sub", [target, mean])])
            for use in uses:
                use.node.replace_input_with(use.idx, shifted)
        graph.insert_after(node, tape.nodes)
    options = SessionOptions()
    options.enable_cpu_mem_arena = False  # frees each activation after its last use
    options.log_severity_level = 3  # errors; the nodes after the last convolution have become useless
    session = InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    means = session.run(None, {graph.inputs[0].name: images})
    return {node.name or "": mean.reshape(-1) for node, mean in zip(convolutions, means, strict=True)}


def _has_value(graph: ir.Graph, name: str) -> bool:
    return any(output.name == name for node in graph for output in node.outputs)


def _producer(value: ir.Value) -> ir.Node:
    return cast("ir.Node", value.producer())


def _array(constant: ir.Value) -> NDArray[Any]:
    return cast("ir.TensorProtocol", constant.const_value).numpy()


class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, input_name: str, images: NDArray[np.uint8]) -> None:
        self._name = input_name
        self._images: Iterator[NDArray[np.uint8]] = iter(images)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        image = next(self._images, None)
        return None if image is None else {self._name: image[np.newaxis]}
