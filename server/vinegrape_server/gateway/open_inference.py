"""The service of the Open Inference Protocol: each call becomes a REST request of the same protocol.

The worker reads and writes tensors in the binary form of Triton's extension:
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError, Message

from vinegrape_handler.contract import ERROR_HEADER, JSON_LENGTH_HEADER, PATH_HEADER
from vinegrape_handler.errors import BadRequest, NotFound, RequestError, TooLarge
from vinegrape_server.gateway import open_inference_pb2 as messages
from vinegrape_server.gateway.calls import Calls
from vinegrape_server.gateway.forwarding import Forwarded, Forwarding, finish, identification
from vinegrape_server.gateway.http_client import Response
from vinegrape_server.gateway.options import Options
from vinegrape_server.gateway.outcome import of_error
from vinegrape_server.gateway.readiness import Readiness
from vinegrape_server.gateway.version import Version
from vinegrape_server.gateway.wire import Shape, check_fields

OPEN_INFERENCE_SERVICE = messages.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name

_LENGTH = struct.Struct("<I")
_MAX_FIELDS = 4096
# Numbers of fields in clients/open_inference.proto
_CONTENTS = Shape(max_bytes=dict.fromkeys(range(1, 8), 1_000_000))
_MODEL_INFER = Shape(messages={5: Shape(messages={5: _CONTENTS}, max_bytes={3: 1000}), 6: Shape()})


class OpenInferenceService:
    """The methods of the service.

    Args:
        options: what is served.
        version: of the served model.
        forwarding: forwards the calls that a worker answers.
        others: bounds the calls of the other methods.
        readiness: whether the server is ready.
    """

    def __init__(
        self, options: Options, version: Version, forwarding: Forwarding, others: Calls, readiness: Readiness
    ) -> None:
        self._options = options
        self._version = version
        self._forwarding = forwarding
        self._others = others
        self._readiness = readiness
        self._model = f"/v2/models/{options.model_name}"

    def handlers(self) -> Mapping[str, Any]:
        """Return the handler of each method by its name."""
        methods = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._infer,
        }
        return {name: grpc.stream_unary_rpc_method_handler(method) for name, method in methods.items()}

    async def _live(self, _messages: object, context: Any) -> bytes:
        await self._read_other(context, messages.ServerLiveRequest)
        return bytes(messages.ServerLiveResponse(live=True).SerializeToString())

    async def _ready(self, _messages: object, context: Any) -> bytes:
        await self._read_other(context, messages.ServerReadyRequest)
        return bytes(messages.ServerReadyResponse(ready=await self._readiness.is_ready()).SerializeToString())

    async def _model_ready(self, _messages: object, context: Any) -> bytes:
        request = await self._read_other(context, messages.ModelReadyRequest)
        ready = self._is_served(request.name, request.version) and await self._readiness.is_ready()
        return bytes(messages.ModelReadyResponse(ready=ready).SerializeToString())

    async def _server_metadata(self, _messages: object, context: Any) -> bytes:
        def read(message: bytes) -> Forwarded:
            _parse(messages.ServerMetadataRequest, message)
            return _get("/v2")

        return await self._forwarding.forward(
            context, read, partial(_convert, _from_json(messages.ServerMetadataResponse))
        )

    async def _model_metadata(self, _messages: object, context: Any) -> bytes:
        def read(message: bytes) -> Forwarded:
            request = _parse(messages.ModelMetadataRequest, message)
            self._check_model(request.name, request.version)
            return _get(self._model)

        return await self._forwarding.forward(
            context, read, partial(_convert, _from_json(messages.ModelMetadataResponse))
        )

    async def _infer(self, _messages: object, context: Any) -> bytes:
        return await self._forwarding.forward(context, self._read_infer, partial(_convert, infer_response))

    def _read_infer(self, message: bytes) -> Forwarded:
        most = self._options.max_request_bytes
        if len(message) > most:
            raise TooLarge(f"The message has {len(message)} bytes; at most {most} are accepted.")
        request = _parse(messages.ModelInferRequest, message, _MODEL_INFER)
        self._check_model(request.model_name, request.model_version)
        head, binary = infer_request(request)
        headers = ((PATH_HEADER, f"{self._model}/infer"), (JSON_LENGTH_HEADER, str(len(head))))
        return Forwarded(head + binary, headers)

    async def _read_other(self, context: Any, kind: Any) -> Any:
        """Return the message of a call that no worker answers, or end the call."""
        try:
            await self._others.admit(context)
            return _parse(kind, await self._others.read(context))
        except RequestError as error:
            await finish(context, of_error(error), identification(context.invocation_metadata()))
        raise AssertionError("abort raises")

    def _is_served(self, name: str, version: str) -> bool:
        return name == self._options.model_name and version in ("", self._version.value)

    def _check_model(self, name: str, version: str) -> None:
        """Check that a request is for the served model.

        Raises:
            NotFound: it is not.
        """
        if not self._is_served(name, version):
            asked = f"{name[:100]!r}" + (f" in version {version[:100]!r}" if version else "")
            raise NotFound(
                f"The model {asked} is not served. The served model is {self._options.model_name!r} in version "
                f"{self._version.value!r}; the version may be empty."
            )


def infer_request(request: Any) -> tuple[bytes, bytes]:
    """Return the JSON and the binary data of the REST request that means the same as a ModelInferRequest.

    Raises:
        BadRequest: the content of an input is missing, twice there, or in a list that is not supported.
    """
    raw = list(request.raw_input_contents)
    if raw and len(raw) != len(request.inputs):
        raise BadRequest(
            f"The message has {len(request.inputs)} inputs and {len(raw)} raw_input_contents; each input must have one."
        )
    if raw and any(tensor.HasField("contents") for tensor in request.inputs):
        raise BadRequest("The message has raw_input_contents, and also an input with contents. Send one of the two.")
    contents = raw or [_content(tensor) for tensor in request.inputs]
    inputs = [
        {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
            "parameters": {**_parameters(tensor), "binary_data_size": len(content)},
        }
        for tensor, content in zip(request.inputs, contents, strict=True)
    ]
    outputs = [
        {"name": output.name, "parameters": {**_parameters(output), "binary_data": True}} for output in request.outputs
    ]
    body = {
        **({"id": request.id} if request.id else {}),
        "parameters": {**_parameters(request), "binary_data_output": True},
        "inputs": inputs,
        **({"outputs": outputs} if outputs else {}),
    }
    return json.dumps(body).encode(), b"".join(contents)


def infer_response(response: Response) -> bytes:
    """Return the serialized ModelInferResponse that means the same as a REST response with binary outputs."""
    length = int(response.headers[JSON_LENGTH_HEADER])
    body, position = json.loads(response.body[:length]), length
    result = messages.ModelInferResponse(
        model_name=body["model_name"], model_version=body["model_version"], id=body.get("id", "")
    )
    for output in body["outputs"]:
        end = position + output["parameters"]["binary_data_size"]
        result.outputs.add(name=output["name"], datatype=output["datatype"], shape=output["shape"])
        result.raw_output_contents.append(response.body[position:end])
        position = end
    return bytes(result.SerializeToString())


def _content(tensor: Any) -> bytes:
    """Return the binary form of the elements that an input holds itself."""
    filled = [field.name for field, _ in tensor.contents.ListFields()]
    if filled == ["bytes_contents"]:
        return b"".join(piece for item in tensor.contents.bytes_contents for piece in (_LENGTH.pack(len(item)), item))
    if filled == ["uint_contents"]:
        try:
            return bytes(tensor.contents.uint_contents)
        except ValueError as error:
            raise BadRequest("The uint_contents must be numbers from 0 to 255.") from error
    found = " and ".join(filled) or "no contents"
    raise BadRequest(f"The input has {found}; it must have raw_input_contents, bytes_contents or uint_contents.")


def _parameters(part: Any) -> dict[str, Any]:
    """Return the parameters of a request, an input or an output."""
    values = ((name, value, value.WhichOneof("parameter_choice")) for name, value in part.parameters.items())
    return {name: getattr(value, chosen) for name, value, chosen in values if chosen}


def _parse(kind: Any, message: bytes, shape: Shape | None = None) -> Any:
    """Parse a message.

    Raises:
        BadRequest: it has too many fields, or is not of this kind.
    """
    name = kind.DESCRIPTOR.name
    check_fields(message, name, _MAX_FIELDS, shape or Shape())
    try:
        return kind.FromString(message)
    except DecodeError as error:
        raise BadRequest(f"The message is not a {name} (clients/open_inference.proto).") from error


def _get(path: str) -> Forwarded:
    return Forwarded(b"", ((PATH_HEADER, path),), "GET")


def _from_json(kind: Callable[[], Message]) -> Callable[[Response], bytes]:
    """Return a function that turns the JSON of a response into a serialized message of this kind."""
    return lambda response: bytes(ParseDict(json.loads(response.body), kind()).SerializeToString())


def _convert(of_success: Callable[[Response], bytes], response: Response) -> Response:
    """Put the result of a success into a message. The protocol's errors over REST are texts: give them our form."""
    if response.status == HTTPStatus.OK:
        return response._replace(body=of_success(response))
    try:
        message = json.loads(response.body)["error"]
    except (ValueError, LookupError, TypeError):
        return response
    error_type = response.headers.get(ERROR_HEADER, "")
    if not isinstance(message, str) or not error_type:
        return response
    body = {"error": {"code": response.status, "type": error_type, "message": message}}
    return response._replace(body=json.dumps(body, separators=(",", ":")).encode())
