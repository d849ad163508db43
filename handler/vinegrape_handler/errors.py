"""The exceptions of the project. `error_body` is the only place that turns one into a response.

VinegrapeError
├── SettingError          an invalid setting, found at start
├── ArchiveError          an archive or its metadata that this code cannot use
└── RequestError          one invalid request or image; other requests are not affected
    ├── BadRequest        400
    ├── NoImage           400
    ├── TooLarge          413
    ├── UnsupportedFormat 415
    ├── BrokenImage       422
    ├── InferenceFailed   503
    ├── DeadlineExceeded  504
    └── Refused           by the edge or the gateway, before a worker has the request
        ├── Unauthorized     401
        ├── Forbidden        403
        ├── NotFound         404
        ├── MethodNotAllowed 405
        ├── UploadTimeout    408
        ├── RateLimited      429
        ├── Overloaded       429
        └── Unavailable      503
"""

from __future__ import annotations

from typing import Any, ClassVar


class VinegrapeError(Exception):
    """Base class. The message states the value, what is wrong with it, and what to do."""


class SettingError(VinegrapeError):
    """A setting has an invalid value."""


class ArchiveError(VinegrapeError):
    """A model archive or its metadata cannot be used."""


class RequestError(VinegrapeError):
    """One request, or one image in it, cannot be classified.

    Attributes:
        status: the HTTP status code.
        type: the error's name in the response and in the metrics.
    """

    status: ClassVar[int]
    type: ClassVar[str]


class BadRequest(RequestError):
    """The request cannot be parsed, for example because its JSON is invalid."""

    status = 400
    type = "bad_request"


class NoImage(RequestError):
    """The request contains no image."""

    status = 400
    type = "no_image"


class TooLarge(RequestError):
    """The request has too many bytes, pixels or instances, or needs too much memory or time."""

    status = 413
    type = "too_large"


NEEDS_MEMORY = "The image needs more memory than the server allows. Send a smaller image."
NEEDS_TIME = "The image needs more time than the server allows. Send a smaller image."


class UnsupportedFormat(RequestError):
    """The bytes are not an image of a supported kind; the message names the kind."""

    status = 415
    type = "unsupported_format"


class BrokenImage(RequestError):
    """The image is of a supported kind, but it is damaged, or fully transparent."""

    status = 422
    type = "broken_image"


class InferenceFailed(RequestError):
    """The network raised an error; the image may be valid."""

    status = 503
    type = "inference_failed"


class DeadlineExceeded(RequestError):
    """The request was not finished within its deadline."""

    status = 504
    type = "deadline_exceeded"


class Refused(RequestError):
    """The edge or the gateway has refused the request. serve_config/haproxy.cfg holds the edge's response bodies."""


class Unauthorized(Refused):
    """The request has no API key, and the server requires one."""

    status = 401
    type = "unauthorized"


class Forbidden(Refused):
    """The API key is not valid."""

    status = 403
    type = "forbidden"


class NotFound(Refused):
    """The path, or the model that a gRPC request names, is not served; or the model gives no explanations."""

    status = 404
    type = "not_found"


class MethodNotAllowed(Refused):
    """The path does not allow this method."""

    status = 405
    type = "method_not_allowed"


class UploadTimeout(Refused):
    """The request has not arrived completely in time."""

    status = 408
    type = "upload_timeout"


class RateLimited(Refused):
    """The client has sent too many requests or opened too many connections; Retry-After states when to retry."""

    status = 429
    type = "rate_limited"


class Overloaded(Refused):
    """Too many requests wait for a worker; Retry-After states when to retry."""

    status = 429
    type = "overloaded"


class Unavailable(Refused):
    """The server is starting or stopping, or the worker that had the request has ended."""

    status = 503
    type = "unavailable"


WORKER_ERRORS = tuple(error for error in RequestError.__subclasses__() if error is not Refused)
REFUSALS = tuple(Refused.__subclasses__())


def error_body(error: RequestError) -> dict[str, Any]:
    """Build the JSON of the error of one image or request. It is the same for REST, gRPC and the operations port."""
    return {"error": {"code": error.status, "type": error.type, "message": str(error)}}
