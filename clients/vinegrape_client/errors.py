"""The exceptions of the client. All but the first four are the server's errors, with the names that the server uses.

VinegrapeError
├── ConnectionFailed        no server has responded
├── UnexpectedResponse      the response is not one of vinegrape's
├── NotSupported            the server's interface does not have this call
├── DeadlineExceeded   504  by the server or by the client
├── BadRequest         400
├── NoImage            400
├── Unauthorized       401
├── Forbidden          403
├── NotFound           404
├── MethodNotAllowed   405
├── UploadTimeout      408
├── TooLarge           413
├── UnsupportedFormat  415
├── BrokenImage        422
├── RateLimited        429
├── Overloaded         429
├── InferenceFailed    503
└── Unavailable        503

A file that cannot be read raises Python's own OSError.
"""

from __future__ import annotations

from typing import Any


class VinegrapeError(Exception):
    """Base class.

    Attributes:
        code: the HTTP status, also over gRPC; 0 if the server has not responded.
        type: the error's name, for programs.
        message: for people.
        retry_after_s: seconds to wait before a retry, as the server states them; None if it states none.
        request_id: the id of the request in the server's access log; empty if unknown.
        can_retry: whether the same request may succeed later.
    """

    code = 0
    type = ""
    can_retry = False

    def __init__(self, message: str, *, retry_after_s: float | None = None, request_id: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s
        self.request_id = request_id

    def to_json(self) -> dict[str, Any]:
        """Return the error in the form of the server's responses: `{"error": {"code", "type", "message"}}`."""
        return {"error": {"code": self.code, "type": self.type, "message": self.message}}


class ConnectionFailed(VinegrapeError):
    """There is no connection, or it was lost before the response was complete."""

    type = "connection_failed"
    can_retry = True


class UnexpectedResponse(VinegrapeError):
    """The response is not one of vinegrape's, or an error that this version of the client does not know."""

    type = "unexpected_response"


class NotSupported(VinegrapeError):
    """The server's interface does not have this call."""

    type = "not_supported"


class DeadlineExceeded(VinegrapeError):
    """The call was not finished within its time."""

    code = 504
    type = "deadline_exceeded"


class BadRequest(VinegrapeError):
    """The request cannot be parsed."""

    code = 400
    type = "bad_request"


class NoImage(VinegrapeError):
    """The request contains no image."""

    code = 400
    type = "no_image"


class Unauthorized(VinegrapeError):
    """The request has no API key, and the server requires one."""

    code = 401
    type = "unauthorized"


class Forbidden(VinegrapeError):
    """The API key is not valid."""

    code = 403
    type = "forbidden"


class NotFound(VinegrapeError):
    """The server does not serve this model, or the address is not that of a vinegrape server."""

    code = 404
    type = "not_found"


class MethodNotAllowed(VinegrapeError):
    """The path does not allow this method."""

    code = 405
    type = "method_not_allowed"


class UploadTimeout(VinegrapeError):
    """The request has not arrived completely in time."""

    code = 408
    type = "upload_timeout"


class TooLarge(VinegrapeError):
    """The image has too many bytes or pixels, or needs too much memory or time."""

    code = 413
    type = "too_large"


class UnsupportedFormat(VinegrapeError):
    """The bytes are not an image of a supported kind; the message names the kind."""

    code = 415
    type = "unsupported_format"


class BrokenImage(VinegrapeError):
    """The image is damaged, or fully transparent."""

    code = 422
    type = "broken_image"


class RateLimited(VinegrapeError):
    """The client has sent too many requests."""

    code = 429
    type = "rate_limited"
    can_retry = True


class Overloaded(VinegrapeError):
    """Too many requests wait for a worker."""

    code = 429
    type = "overloaded"
    can_retry = True


class InferenceFailed(VinegrapeError):
    """The network raised an error; the image may be valid."""

    code = 503
    type = "inference_failed"
    can_retry = True


class Unavailable(VinegrapeError):
    """The server is starting or stopping, or the worker that had the request has ended."""

    code = 503
    type = "unavailable"
    can_retry = True


_BY_TYPE = {error.type: error for error in VinegrapeError.__subclasses__() if error.code}
# Of two errors with the same status, the later one is meant if the response does not state the type
_BY_CODE = {error.code: error for error in _BY_TYPE.values()}


def make_error(
    code: int, type_: str, message: str, *, retry_after_s: float | None = None, request_id: str = ""
) -> VinegrapeError:
    """Return the exception for an error of the server.

    Args:
        code: the HTTP status.
        type_: the error's type; empty if something else than vinegrape has responded, such as TorchServe or a proxy.
        message: the error's message.
        retry_after_s: see `VinegrapeError`.
        request_id: see `VinegrapeError`.
    """
    known = _BY_TYPE.get(type_) if type_ else _BY_CODE.get(code)
    error = (known or UnexpectedResponse)(message, retry_after_s=retry_after_s, request_id=request_id)
    if known is None:
        error.code, error.type = code, type_ or error.type
    return error
