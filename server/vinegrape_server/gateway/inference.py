"""TorchServe's gRPC service: forwards `Predictions` to REST, and reports readiness as `Ping`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any

import grpc
from grpc import aio

from vinegrape_handler.contract import DEADLINE_HEADER, TRANSPORT_HEADER
from vinegrape_handler.errors import DeadlineExceeded, MethodNotAllowed, RequestError, Unavailable
from vinegrape_server.gateway.calls import Calls
from vinegrape_server.gateway.http_client import HttpClient
from vinegrape_server.gateway.inference_pb2 import DESCRIPTOR, PredictionResponse, TorchServeHealthResponse
from vinegrape_server.gateway.message import read_image
from vinegrape_server.gateway.metrics import Metrics
from vinegrape_server.gateway.options import Options
from vinegrape_server.gateway.outcome import Outcome, of_error, of_response
from vinegrape_server.gateway.readiness import Readiness

SERVICE = DESCRIPTOR.services_by_name["InferenceAPIsService"].full_name

# The edge and the worker end a request at its deadline, with our JSON. The gateway does so itself somewhat later.
_GRACE_S = 0.25
_STREAM_END_S = 1  # longest wait for the last message of a stream that is refused
_PRINTABLE = re.compile(r"[\x21-\x7e]{1,128}")
_TRACE = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[\x21-\x7e]{1,100})?")

_logger = logging.getLogger("vinegrape")


class InferenceService:
    """The methods of the service.

    Args:
        options: what is served.
        predictions: bounds the calls of `Predictions`.
        others: bounds the calls of the other methods.
        readiness: whether the server is ready.
        metrics: counts the calls.
    """

    def __init__(
        self, options: Options, predictions: Calls, others: Calls, readiness: Readiness, metrics: Metrics
    ) -> None:
        self._options = options
        self._predictions, self._others = predictions, others
        self._readiness = readiness
        self._metrics = metrics
        self._rest = HttpClient(options.rest)
        self._path = f"/predictions/{options.model_name}"

    def handlers(self) -> Mapping[str, Any]:
        """Return the handler of each method by its name."""
        return {
            "Predictions": grpc.stream_unary_rpc_method_handler(self._predict),
            "Ping": grpc.stream_unary_rpc_method_handler(self._ping),
            "StreamPredictions": grpc.stream_stream_rpc_method_handler(self._refuse),
            "StreamPredictions2": grpc.stream_stream_rpc_method_handler(self._refuse),
        }

    async def _predict(self, _messages: object, context: Any) -> bytes:
        """Forward one call. It is counted once, whatever happens."""
        headers = _identification(context.invocation_metadata())
        try:
            try:
                await self._predictions.admit(context)
                outcome = await self._forward(context, headers)
            except RequestError as error:
                outcome = of_error(error)
        except asyncio.CancelledError:
            self._metrics.count_cancelled(after_deadline=context.time_remaining() == 0)
            raise
        except Exception as error:
            _logger.error("The gRPC gateway could not process a call: %r", error)
            outcome = of_error(Unavailable("The gateway could not process the request."))
        self._metrics.count(outcome)
        return await self._finish(context, outcome, headers)

    async def _forward(self, context: Any, headers: list[tuple[str, str]]) -> Outcome:
        options = self._options
        deadline_s = options.deadline_ms / 1000
        if (remaining_s := context.time_remaining()) is not None:
            deadline_s = min(deadline_s, remaining_s)
        ends_at = asyncio.get_running_loop().time() + deadline_s + _GRACE_S
        headers = [
            *headers,
            ("content-type", "application/octet-stream"),
            (TRANSPORT_HEADER, "grpc"),
            (DEADLINE_HEADER, str(int(1000 * (time.time() + deadline_s)))),
        ]
        image = read_image(
            await self._predictions.read(context),
            options.model_name,
            options.model_version,
            options.max_request_bytes,
        )
        try:
            async with asyncio.timeout_at(ends_at):
                response = await self._rest.request("POST", self._path, headers, image)
        except TimeoutError as error:
            raise DeadlineExceeded(f"The request was not finished within {options.deadline_ms} ms.") from error
        except OSError as error:
            raise Unavailable("The server is starting, stopping or restarting. Retry after a delay.") from error
        return of_response(response, response.status == Unavailable.status and await self._readiness.is_ready())

    async def _ping(self, _messages: object, context: Any) -> bytes:
        try:
            await self._others.admit(context)
            await self._others.read(context)
        except RequestError as error:
            return await self._finish(context, of_error(error), [])
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
        await self._finish(context, outcome, _identification(context.invocation_metadata()))

    async def _finish(self, context: Any, outcome: Outcome, headers: list[tuple[str, str]]) -> bytes:
        """Return a serialized success, or end the call with a status."""
        if outcome.error:
            await context.abort(outcome.code, outcome.body.decode(), (*headers, *outcome.trailers))
        context.set_trailing_metadata(headers)
        return bytes(PredictionResponse(prediction=outcome.body).SerializeToString())


def _identification(metadata: Any) -> list[tuple[str, str]]:
    """Return the headers that identify a call: taken over from its metadata if they are valid; a new id otherwise."""
    request_id, trace = "", ""
    for name, value in metadata or ():
        if name == "x-request-id" and isinstance(value, str) and _PRINTABLE.fullmatch(value):
            request_id = value
        elif name == "traceparent" and isinstance(value, str) and _TRACE.fullmatch(value):
            trace = value
    identification = [("x-request-id", request_id or secrets.token_hex(16))]
    return [*identification, ("traceparent", trace)] if trace else identification
