"""The Open Inference Protocol, version 2, over REST, with the extension for binary tensors.

https://github.com/kserve/open-inference-protocol describes the protocol, and Triton's documentation the extension:
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from vinegrape_handler import answer
from vinegrape_handler.classifier import InputImage
from vinegrape_handler.contract import JSON_LENGTH_HEADER
from vinegrape_handler.errors import BadRequest, NoImage, RequestError, TooLarge
from vinegrape_handler.instances import decode_base64, max_values, parse_json
from vinegrape_handler.metadata import Metadata
from vinegrape_handler.protocols import tensors
from vinegrape_handler.protocols.route import Call, Model, Pending, Response, Result, Route, constant
from vinegrape_handler.request import text_headers

IMAGE, PIXELS = "image", "pixels"

_FORM = '{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["BASE64"]}]}'
_BINARY_TYPE = "application/octet-stream"
_PLATFORMS = {
    "onnx_int8": "onnxruntime_onnx",
    "onnx_fp32": "onnxruntime_onnx",
    "torchscript": "pytorch_torchscript",
}


def routes(model: Model) -> dict[str, Route]:
    """Return the routes by path."""
    metadata = model.metadata
    server = {"name": metadata.name, "version": metadata.version, "extensions": ["binary_tensor_data"]}
    paths = (f"/v2/models/{metadata.name}", f"/v2/models/{metadata.name}/versions/{metadata.version}")
    return {
        "/v2": Route(constant(server), _error_response),
        **{path: Route(constant(_model_metadata(model)), _error_response) for path in paths},
        **{f"{path}/infer": Route(partial(_read, model), _error_response) for path in paths},
    }


def _error_response(error: RequestError) -> Response:
    return Response({"error": str(error)}, error)


def _model_metadata(model: Model) -> dict[str, Any]:
    side = model.metadata.input_size
    return {
        "name": model.metadata.name,
        "versions": [model.metadata.version],
        "platform": _PLATFORMS[model.backend],
        "inputs": [
            {"name": IMAGE, "datatype": "BYTES", "shape": [-1]},
            {"name": PIXELS, "datatype": "UINT8", "shape": [-1, side, side, 3]},
        ],
        "outputs": [
            {"name": name, "datatype": datatype, "shape": [-1, *shape]}
            for name, (datatype, shape) in _outputs(model.metadata).items()
        ],
    }


def _outputs(metadata: Metadata) -> dict[str, tuple[tensors.Datatype, list[int]]]:
    """Return datatype and shape per image of each output."""
    outputs: dict[str, tuple[tensors.Datatype, list[int]]] = {
        "probabilities": ("FP32", [len(metadata.classes)]),
        "label": ("BYTES", []),
    }
    if metadata.ood_threshold is not None:
        outputs |= {"known": ("BOOL", []), "ood_score": ("FP32", [])}
    return outputs


# Requests


def _read(model: Model, call: Call) -> Pending:
    body = call.row.get("body") or b""
    if not isinstance(body, bytes | bytearray):
        raise BadRequest(f"The body is not JSON of the form {_FORM}.")
    head, binary = _split(body, text_headers(call.headers).get(JSON_LENGTH_HEADER))
    request = _object(_parse(head, model), "The request")
    request_id = request.get("id")
    if not isinstance(request_id, str | None):
        raise BadRequest('The "id" of the request must be a string.')
    chosen = _requested_outputs(request, model.metadata)
    images = _read_images(request, binary, model)
    return Pending(images, partial(_respond, model.metadata, request_id, chosen), is_list=True)


def _split(body: bytes | bytearray, json_length: str | None) -> tuple[bytes | bytearray, memoryview]:
    """Split a body into its JSON and the binary data of its tensors.

    Raises:
        BadRequest: the length is not valid.
    """
    if json_length is None:
        return body, memoryview(b"")
    if not (json_length.isascii() and json_length.isdigit() and len(json_length) <= 9):
        raise BadRequest(f"The header {JSON_LENGTH_HEADER} is {json_length[:40]!r}; it must be a number of bytes.")
    length = int(json_length)
    if not 0 < length <= len(body):
        raise BadRequest(
            f"The header {JSON_LENGTH_HEADER} is {length}; the body has {len(body)} bytes, and must begin with JSON."
        )
    return body[:length], memoryview(body)[length:]


def _parse(head: bytes | bytearray, model: Model) -> Any:
    if head.lstrip()[:1] != b"{":
        raise BadRequest(
            f"The body must begin with JSON of the form {_FORM}. Compressed bodies (Content-Encoding) are not "
            "supported."
        )
    settings, side = model.settings, model.metadata.input_size
    numbers = settings.max_instances * side * side * 3
    return parse_json(head, max_values(settings.max_instances), _FORM, numbers)


def _requested_outputs(request: Mapping[str, Any], metadata: Metadata) -> dict[str, bool]:
    """Return the names of the outputs that a request asks for, and whether each should be binary.

    Raises:
        BadRequest: an output does not exist, or has a parameter that is not supported.
    """
    offered = _outputs(metadata)
    binary = bool(_parameters(request, "The request").get("binary_data_output", False))
    requested = request.get("outputs")
    if not requested:
        return dict.fromkeys(offered, binary)
    chosen = {}
    for output in _list(requested, '"outputs"'):
        name = _object(output, "An output").get("name")
        if not isinstance(name, str) or name not in offered:
            raise BadRequest(f"There is no output {str(name)[:40]!r}; the outputs are {', '.join(offered)}.")
        if name in chosen:
            raise BadRequest(f"The output {name!r} is requested more than once.")
        parameters = _parameters(output, f"The output {name!r}")
        for unsupported in ("classification", "shared_memory_region"):
            if parameters.get(unsupported):
                raise BadRequest(f"The output {name!r} has the parameter {unsupported!r}, which is not supported.")
        chosen[name] = bool(parameters.get("binary_data", binary))
    return chosen


def _read_images(request: Mapping[str, Any], binary: memoryview, model: Model) -> list[InputImage]:
    """Return the images of the only input.

    Raises:
        BadRequest: the input is not one that the model has.
        NoImage: its shape has no image.
        TooLarge: it has too many images.
    """
    inputs = _list(request.get("inputs"), '"inputs"')
    side = model.metadata.input_size
    if len(inputs) != 1:
        raise BadRequest(f"The request has {len(inputs)} inputs; it must have one, {IMAGE!r} or {PIXELS!r}.")
    tensor = _object(inputs[0], "The input")
    name, datatype = tensor.get("name"), tensor.get("datatype")
    if (name, datatype) not in ((IMAGE, "BYTES"), (PIXELS, "UINT8")):
        raise BadRequest(
            f"The input is {str(name)[:40]!r} with datatype {str(datatype)[:40]!r}; it must be {IMAGE!r} with BYTES, "
            f"or {PIXELS!r} with UINT8."
        )
    shape = _shape(tensor)
    if name == PIXELS and shape[1:] != [side, side, 3]:
        raise BadRequest(f"The shape of {PIXELS!r} is {shape}; it must be [N, {side}, {side}, 3].")
    if name == IMAGE and shape[1:] not in ([], [1]):
        raise BadRequest(f"The shape of {IMAGE!r} is {shape}; it must be [N] or [N, 1].")
    if shape[0] == 0:
        raise NoImage(f"The input {name!r} has no image: its shape is {shape}.")
    if shape[0] > model.settings.max_instances:
        raise TooLarge(f"The request has {shape[0]} images; at most {model.settings.max_instances} are accepted.")
    content = _content(tensor, binary)
    if name == PIXELS:
        return list(tensors.read_uint8(content, shape))
    items = tensors.read_bytes(content, shape[0])
    return [_decode(item) if isinstance(item, str) else item for item in items]


def _content(tensor: Mapping[str, Any], binary: memoryview) -> memoryview | list[Any]:
    """Return the content of the only input: binary, or the values of the JSON, without nesting.

    Raises:
        BadRequest: it has none, or the binary data has another size.
    """
    parameters = _parameters(tensor, "The input")
    if "shared_memory_region" in parameters:
        raise BadRequest("The input is in shared memory, which is not supported. Send its data.")
    size = parameters.get("binary_data_size")
    if size is None and not len(binary):
        return tensors.flatten(_list(tensor.get("data"), 'The input\'s "data"'))
    if size != len(binary) or isinstance(size, bool):
        raise BadRequest(
            f"The input has the binary_data_size {str(size)[:40]}, but {len(binary)} bytes follow the JSON. The header "
            f"{JSON_LENGTH_HEADER} must be the size of the JSON."
        )
    return binary


def _decode(text: str) -> InputImage:
    try:
        return decode_base64(text)
    except UnicodeEncodeError:
        return BadRequest("It is not valid base64: it has a character that is not ASCII.")
    except ValueError as error:
        return BadRequest(f"It is not valid base64: {error}.")


def _shape(tensor: Mapping[str, Any]) -> list[int]:
    shape = _list(tensor.get("shape"), "The input's shape")
    if not 1 <= len(shape) <= 4 or not all(type(length) is int and length >= 0 for length in shape):
        raise BadRequest(f"The input's shape is {str(shape)[:80]}; it must be [N], [N, 1], or that of {PIXELS!r}.")
    return shape


def _parameters(part: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    return _object(part.get("parameters") or {}, f"{what}: the value of parameters")


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadRequest(f"{what} must be a JSON object, as in {_FORM}.")
    return value


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise BadRequest(f"{what} must be a list, as in {_FORM}.")
    return value


# Responses


def _respond(
    metadata: Metadata, request_id: str | None, chosen: Mapping[str, bool], results: Sequence[Result]
) -> Response:
    """Build the response. The protocol has no errors of single images: the first one is that of the request."""
    predictions = []
    for index, result in enumerate(results):
        if isinstance(result, RequestError):
            return _error_response(type(result)(f"The image with index {index} has an error: {result}"))
        predictions.append(result.prediction)
    offered = _outputs(metadata)
    outputs, pieces = [], []
    for name, is_binary in chosen.items():
        datatype, shape = offered[name]
        values = [_value(prediction, name) for prediction in predictions]
        output: dict[str, Any] = {"name": name, "datatype": datatype, "shape": [len(values), *shape]}
        if is_binary:
            pieces.append(tensors.to_binary(values, datatype))
            output["parameters"] = {"binary_data_size": len(pieces[-1])}
        else:
            output["data"] = np.ravel(values).tolist() if shape else values
        outputs.append(output)
    body = {
        "model_name": metadata.name,
        "model_version": metadata.version,
        **({} if request_id is None else {"id": request_id}),
        "outputs": outputs,
    }
    if not any(chosen.values()):
        return Response(body)
    head = answer.encode(body)
    return Response(b"".join([head, *pieces]), headers={JSON_LENGTH_HEADER: str(len(head))}, content_type=_BINARY_TYPE)


def _value(prediction: Mapping[str, Any], output: str) -> Any:
    """Return the value of an output for one image."""
    if output == "probabilities":
        return list(prediction["probabilities"].values())
    return prediction[output] if prediction[output] is not None else ""  # a tensor has no null
