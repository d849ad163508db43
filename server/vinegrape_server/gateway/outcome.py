"""What a call gets: the status of the REST side, or an error of the gateway, as a gRPC status with JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus

import grpc

from vinegrape_handler.errors import Overloaded, RequestError, TooLarge, Unavailable, error_body
from vinegrape_server.gateway.http_client import Response

GRPC_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    405: grpc.StatusCode.UNIMPLEMENTED,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_RETRY_AFTER_S = 1


@dataclass(frozen=True)
class Outcome:
    """The outcome of one call.

    Attributes:
        status: HTTP status.
        error: the error's type; empty for a success.
        body: JSON in UTF-8.
        retry_after_s: seconds after which a client may retry; None if the server does not say.
        metadata: initial metadata: where the time went, and what the edge logs and removes.
    """

    status: int
    error: str
    body: bytes
    retry_after_s: int | None = None
    metadata: tuple[tuple[str, str], ...] = ()

    @property
    def code(self) -> grpc.StatusCode:
        """The gRPC status."""
        return GRPC_CODES[self.status] if self.error else grpc.StatusCode.OK

    @property
    def trailers(self) -> tuple[tuple[str, str], ...]:
        """The trailing metadata that tell when to retry. gRPC's own retries read the second one."""
        if self.retry_after_s is None:
            return ()
        return ("retry-after", str(self.retry_after_s)), ("grpc-retry-pushback-ms", str(1000 * self.retry_after_s))


def of_error(error: RequestError) -> Outcome:
    """Return the outcome of a call that the gateway refuses."""
    body = error_body(error)
    retry_after_s = _RETRY_AFTER_S if isinstance(error, Overloaded) else None
    return Outcome(error.status, error.type, json.dumps(body, separators=(",", ":")).encode(), retry_after_s)


def of_response(response: Response, is_ready: bool) -> Outcome:
    """Return the outcome of a call that has a response of REST.

    The handler and the edge describe each error in our JSON. TorchServe's own errors have another form: they are
    replaced, because they speak of workers and of an API that is not the client's.

    Args:
        response: the response.
        is_ready: whether the server is ready. TorchServe's 503 means that its queue is full, or that it has no worker.
    """
    if response.status == HTTPStatus.OK:
        return Outcome(response.status, "", response.body)
    error_type = _error_type(response.body)
    if error_type and response.status in GRPC_CODES:
        retry_after = response.headers.get("retry-after", "")
        return Outcome(
            response.status, error_type, response.body, int(retry_after) if retry_after.isdecimal() else None
        )
    if response.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return of_error(TooLarge("The request has too many bytes."))
    if response.status == HTTPStatus.SERVICE_UNAVAILABLE and is_ready:
        return of_error(Overloaded("Too many requests wait for a worker. Retry after a second."))
    return of_error(Unavailable("The server could not process the request. Retry after a delay."))


def _error_type(body: bytes) -> str:
    """Return the type of an error in our JSON; empty if the body has another form."""
    try:
        error_type = json.loads(body)["error"]["type"]
    except (ValueError, LookupError, TypeError):
        return ""
    return error_type if isinstance(error_type, str) else ""
