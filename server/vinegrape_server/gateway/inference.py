"""TorchServe's gRPC service: forwards `Predictions` to REST, and reports readiness as `Ping`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

import grpc
from grpc import aio

from vinegrape_handler.contract import PATH_HEADER
from vinegrape_handler.errors import MethodNotAllowed, RequestError
from vinegrape_server.gateway.calls import Calls
from vinegrape_server.gateway.forwarding import Forwarded, Forwarding, finish, identification
from vinegrape_server.gateway.http_client import Response
from vinegrape_server.gateway.inference_pb2 import DESCRIPTOR, PredictionResponse, TorchServeHealthResponse
from vinegrape_server.gateway.message import read_message
from vinegrape_server.gateway.metrics import Metrics
from vinegrape_server.gateway.options import Options
from vinegrape_server.gateway.outcome import of_error
from vinegrape_server.gateway.readiness import Readiness
from vinegrape_server.gateway.version import Version

SERVICE = DESCRIPTOR.services_by_name["InferenceAPIsService"].full_name

_STREAM_END_S = 1  # longest wait for the last message of a stream that is refused


class InferenceService:
    """The methods of the service.

    Args:
        options: what is served.
        version: of the served model.
        forwarding: forwards the calls of `Predictions`.
        others: bounds the calls of the other methods.
        readiness: whether the server is ready.
        metrics: counts the calls.
    """

    def __init__(
        self,
        options: Options,
        version: Version,
        forwarding: Forwarding,
        others: Calls,
        readiness: Readiness,
        metrics: Metrics,
    ) -> None:
        self._options = options
        self._version = version
        self._forwarding = forwarding
        self._others = others
        self._readiness = readiness
        self._metrics = metrics

    def handlers(self) -> Mapping[str, Any]:
        """Return the handler of each method by its name."""
        return {
            "Predictions": grpc.stream_unary_rpc_method_handler(self._predict),
            "Ping": grpc.stream_unary_rpc_method_handler(self._ping),
            "StreamPredictions": grpc.stream_stream_rpc_method_handler(self._refuse),
            "StreamPredictions2": grpc.stream_stream_rpc_method_handler(self._refuse),
        }

    async def _predict(self, _messages: object, context: Any) -> bytes:
        return await self._forwarding.forward(context, self._read, _to_message)

    def _read(self, message: bytes) -> Forwarded:
        options = self._options
        request = read_message(message, options.model_name, self._version.value, options.max_request_bytes)
        if not request.explain:
            return Forwarded(request.image)
        query = f"?{urlencode({'class': request.class_})}" if request.class_ else ""
        return Forwarded(request.image, ((PATH_HEADER, f"/explanations/{options.model_name}{query}"),))

    async def _ping(self, _messages: object, context: Any) -> bytes:
        try:
            await self._others.admit(context)
            await self._others.read(context)
        except RequestError as error:
            return await finish(context, of_error(error), [])
        health = "Healthy" if await self._readiness.is_ready() else "Unhealthy"
        response = TorchServeHealthResponse(health=f'{{\n  "status": "{health}"\n}}\n')
        return bytes(response.SerializeToString())

    async def _refuse(self, _messages: object, context: Any) -> None:
        """Refuse a stream: TorchServe's stream methods end workers.

        The messages are read first. The edge resets a call that is answered before its last message, and the client
        would see CANCELLED.
        """
        with contextlib.suppress(RequestError, TimeoutError):
            async with asyncio.timeout(_STREAM_END_S):
                await self._others.admit(context)
                while await context.read() is not aio.EOF:
                    pass
        outcome = of_error(MethodNotAllowed("Streams are not supported; call Predictions for each image."))
        self._metrics.count(outcome)
        await finish(context, outcome, identification(context.invocation_metadata()))


def _to_message(response: Response) -> Response:
    """Put the JSON of a success into a PredictionResponse."""
    if response.status != HTTPStatus.OK:
        return response
    return response._replace(body=PredictionResponse(prediction=response.body).SerializeToString())
