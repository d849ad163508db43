"""gRPC, with the stubs that `make proto` generates from inference.proto."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty
from grpc import StatusCode, aio

from vinegrape_client.errors import (
    ConnectionFailed,
    DeadlineExceeded,
    NotSupported,
    TooLarge,
    UnexpectedResponse,
    VinegrapeError,
)
from vinegrape_client.inference_pb2 import PredictionsRequest
from vinegrape_client.inference_pb2_grpc import InferenceAPIsServiceStub
from vinegrape_client.options import USER_AGENT, Options
from vinegrape_client.responses import error_in, read_body, read_error

_CHANNEL_OPTIONS = [
    ("grpc.primary_user_agent", USER_AGENT),
    ("grpc.enable_retries", 0),  # `Retries` decides
    ("grpc.use_local_subchannel_pool", 1),  # a client's connection ends with the client
    # Calls fail at once while gRPC waits to connect again, and it waits up to two minutes by default
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
]

_NO_DESCRIPTION = "TorchServe's gRPC service cannot describe the model. Use REST: Client('http://HOST:PORT').describe()"


class Grpc:
    """Calls the server over gRPC, on one connection for all calls."""

    def __init__(self, options: Options) -> None:
        credentials = _credentials(options)
        self._channel = (
            grpc.secure_channel(options.address, credentials, _CHANNEL_OPTIONS)
            if credentials
            else grpc.insecure_channel(options.address, _CHANNEL_OPTIONS)
        )
        self._stub = InferenceAPIsServiceStub(self._channel)
        self._options = options

    def predict(self, image: bytes, timeout_s: float) -> Any:
        """Send an image; return the parsed JSON of the response."""
        return self._call({"data": image}, timeout_s)

    def explain(self, image: bytes, class_: str | None, timeout_s: float) -> Any:
        """Send an image to be explained; return the parsed JSON of the response."""
        return self._call({"data": image, **_explain(class_)}, timeout_s)

    def describe(self, timeout_s: float) -> Any:
        """Raise NotSupported."""
        raise NotSupported(_NO_DESCRIPTION)

    def ready(self, timeout_s: float) -> bool:
        """Return whether the server is ready."""
        try:
            response = self._stub.Ping(Empty(), timeout=timeout_s, metadata=_metadata(self._options))
        except grpc.RpcError as error:
            raise _failure(error, timeout_s) from error
        return _is_healthy(response)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def _call(self, inputs: Mapping[str, bytes], timeout_s: float) -> Any:
        request = PredictionsRequest(model_name=self._options.model, input=inputs)
        try:
            response = self._stub.Predictions(request, timeout=timeout_s, metadata=_metadata(self._options))
        except grpc.RpcError as error:
            raise _failure(error, timeout_s) from error
        return read_body(200, {}, response.prediction)


class AsyncGrpc:
    """The same for asyncio. It must be created in a coroutine: gRPC binds a channel to the event loop that runs."""

    def __init__(self, options: Options) -> None:
        credentials = _credentials(options)
        self._channel = (
            aio.secure_channel(options.address, credentials, _CHANNEL_OPTIONS)
            if credentials
            else aio.insecure_channel(options.address, _CHANNEL_OPTIONS)
        )
        self._stub = InferenceAPIsServiceStub(self._channel)
        self._options = options

    async def predict(self, image: bytes, timeout_s: float) -> Any:
        """Send an image; return the parsed JSON of the response."""
        return await self._call({"data": image}, timeout_s)

    async def explain(self, image: bytes, class_: str | None, timeout_s: float) -> Any:
        """Send an image to be explained; return the parsed JSON of the response."""
        return await self._call({"data": image, **_explain(class_)}, timeout_s)

    async def describe(self, timeout_s: float) -> Any:
        """Raise NotSupported."""
        raise NotSupported(_NO_DESCRIPTION)

    async def ready(self, timeout_s: float) -> bool:
        """Return whether the server is ready."""
        try:
            response = await self._stub.Ping(Empty(), timeout=timeout_s, metadata=_metadata(self._options))
        except grpc.RpcError as error:
            raise _failure(error, timeout_s) from error
        return _is_healthy(response)

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def _call(self, inputs: Mapping[str, bytes], timeout_s: float) -> Any:
        request = PredictionsRequest(model_name=self._options.model, input=inputs)
        try:
            response = await self._stub.Predictions(request, timeout=timeout_s, metadata=_metadata(self._options))
        except grpc.RpcError as error:
            raise _failure(error, timeout_s) from error
        return read_body(200, {}, response.prediction)


def _credentials(options: Options) -> Any:
    """Return the credentials of a connection with TLS; None if it uses none."""
    if not options.uses_tls:
        return None
    return grpc.ssl_channel_credentials(Path(options.ca_file).read_bytes() if options.ca_file else None)


def _explain(class_: str | None) -> dict[str, bytes]:
    """Return the inputs that ask for an explanation."""
    return {"explain": b"1"} | ({} if class_ is None else {"class": class_.encode()})


def _metadata(options: Options) -> tuple[tuple[str, str], ...]:
    return tuple(options.headers.items())


def _is_healthy(response: Any) -> bool:
    return '"Healthy"' in response.health


def _failure(error: Any, timeout_s: float) -> VinegrapeError:
    """Return the exception for a failed call: the error in the details, or else one of gRPC itself."""
    status, details = error.code(), error.details() or ""
    if in_details := error_in(details.encode()):
        return read_error(int(in_details["code"]), dict(error.trailing_metadata() or ()), details.encode())
    match status:
        case StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded(f"The server has not responded within {timeout_s:.3g} s.")
        case StatusCode.UNAVAILABLE:
            failure = ConnectionFailed(f"gRPC UNAVAILABLE: {details}")
            failure.can_retry = "CERTIFICATE_VERIFY_FAILED" not in details
            return failure
        case StatusCode.RESOURCE_EXHAUSTED:
            return TooLarge(details)  # gRPC itself limits the bytes of a message
        case _:
            return UnexpectedResponse(f"gRPC {status.name}: {details}")
