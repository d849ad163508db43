"""Forward a gRPC call to REST, and end it with the status and the message that REST gave it."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import re
import secrets
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from vinegrape_handler.contract import (
    CALL_ERROR_HEADER,
    DEADLINE_HEADER,
    QUEUE_HEADER,
    TIMING_HEADER,
    TRANSPORT_HEADER,
    VERSION_HEADER,
)
from vinegrape_handler.errors import DeadlineExceeded, RequestError, Unavailable
from vinegrape_server.gateway.calls import Calls
from vinegrape_server.gateway.http_client import HttpClient, Response
from vinegrape_server.gateway.metrics import Metrics
from vinegrape_server.gateway.options import Options
from vinegrape_server.gateway.outcome import Outcome, of_error, of_response
from vinegrape_server.gateway.readiness import Readiness

# The edge and the worker end a request at its deadline, with our JSON. The gateway does so itself somewhat later.
_GRACE_S = 0.25
_PRINTABLE = re.compile(r"[\x21-\x7e]{1,128}")
_TRACE = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[\x21-\x7e]{1,100})?")

# Headers of REST that become initial metadata, and those that the edge reads and removes
_FOR_CLIENTS = (TIMING_HEADER,)
_FOR_THE_EDGE = (QUEUE_HEADER, VERSION_HEADER)

_logger = logging.getLogger("vinegrape")


class Forwarded(NamedTuple):
    """The REST request of a call.

    Attributes:
        body: its body.
        headers: its headers, beside those that every request of the gateway has.
        method: its method.
    """

    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    method: str = "POST"


class Forwarding:
    """Forwards calls, bounded and counted.

    Args:
        options: what is served.
        calls: bounds the calls.
        readiness: whether the server is ready.
        metrics: counts the calls.
    """

    def __init__(self, options: Options, calls: Calls, readiness: Readiness, metrics: Metrics) -> None:
        self._options = options
        self._calls = calls
        self._readiness = readiness
        self._metrics = metrics
        self._rest = HttpClient(options.rest)
        self._path = f"/predictions/{options.model_name}"

    async def forward(
        self, context: Any, read: Callable[[bytes], Forwarded], convert: Callable[[Response], Response]
    ) -> bytes:
        """Forward one call, and return its serialized response or end it with a status. It is counted once.

        Args:
            context: of the call.
            read: turns the call's message into a request; may raise a RequestError.
            convert: turns the body of a success into a serialized message, and that of an error into our JSON.
        """
        headers = identification(context.invocation_metadata())
        try:
            try:
                await self._calls.admit(context)
                outcome = await self._exchange(context, headers, read, convert)
            except RequestError as error:
                outcome = of_error(error)
        except asyncio.CancelledError:
            self._metrics.count_cancelled(after_deadline=context.time_remaining() == 0)
            raise
        except Exception as error:
            _logger.error("The gRPC gateway could not process a call: %r", error)
            outcome = of_error(Unavailable("The gateway could not process the request."))
        self._metrics.count(outcome)
        if outcome.error and self._options.is_behind_edge:
            outcome = dataclasses.replace(outcome, metadata=(*outcome.metadata, (CALL_ERROR_HEADER, outcome.error)))
        return await finish(context, outcome, headers)

    async def _exchange(
        self,
        context: Any,
        headers: list[tuple[str, str]],
        read: Callable[[bytes], Forwarded],
        convert: Callable[[Response], Response],
    ) -> Outcome:
        deadline_s = self._options.deadline_ms / 1000
        if (remaining_s := context.time_remaining()) is not None:
            deadline_s = min(deadline_s, remaining_s)
        ends_at = asyncio.get_running_loop().time() + deadline_s + _GRACE_S
        deadline = (DEADLINE_HEADER, str(int(1000 * (time.time() + deadline_s))))
        request = read(await self._calls.read(context))
        if request.body:
            headers = [*headers, ("content-type", "application/octet-stream")]
        headers = [*headers, (TRANSPORT_HEADER, "grpc"), deadline, *request.headers]
        try:
            async with asyncio.timeout_at(ends_at):
                response = await self._rest.request(request.method, self._path, headers, request.body)
        except TimeoutError as error:
            raise DeadlineExceeded(f"The request was not finished within {self._options.deadline_ms} ms.") from error
        except OSError as error:
            raise Unavailable("The server is starting, stopping or restarting. Retry after a delay.") from error
        is_ready = response.status == Unavailable.status and await self._readiness.is_ready()
        names = (*_FOR_CLIENTS, *(_FOR_THE_EDGE if self._options.is_behind_edge else ()))
        metadata = tuple((name, response.headers[name]) for name in names if name in response.headers)
        return dataclasses.replace(of_response(convert(response), is_ready), metadata=metadata)


async def finish(context: Any, outcome: Outcome, headers: list[tuple[str, str]]) -> bytes:
    """Return the serialized message of a success, or end the call with a status."""
    if outcome.metadata:
        await context.send_initial_metadata(outcome.metadata)
    if outcome.error:
        await context.abort(outcome.code, outcome.body.decode(), (*headers, *outcome.trailers))
    context.set_trailing_metadata(headers)
    return outcome.body


def identification(metadata: Any) -> list[tuple[str, str]]:
    """Return the headers that identify a call: taken over from its metadata if they are valid; a new id otherwise."""
    request_id, trace = "", ""
    for name, value in metadata or ():
        if name == "x-request-id" and isinstance(value, str) and _PRINTABLE.fullmatch(value):
            request_id = value
        elif name == "traceparent" and isinstance(value, str) and _TRACE.fullmatch(value):
            trace = value
    found = [("x-request-id", request_id or secrets.token_hex(16))]
    return [*found, ("traceparent", trace)] if trace else found
