"""The exceptions of the project. `answer.error_body` is the only place that turns one into a response.

VinegrapeError
├── SettingError          an invalid setting, found at start
├── ArchiveError          an archive or its metadata that this code cannot use
└── RequestError          one invalid request or image; other requests are not affected
    ├── BadRequest        400
    ├── NoImage           400
    ├── TooLarge          413
    ├── UnsupportedFormat 415
    ├── BrokenImage       422
    └── InferenceFailed   503
"""

from __future__ import annotations

from typing import ClassVar


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
    """The request has too many bytes, pixels or instances."""

    status = 413
    type = "too_large"


class UnsupportedFormat(RequestError):
    """The bytes are not an image in a supported format."""

    status = 415
    type = "unsupported_format"


class BrokenImage(RequestError):
    """The bytes start like an image in a supported format but cannot be decoded."""

    status = 422
    type = "broken_image"


class InferenceFailed(RequestError):
    """The network raised an error; the image may be valid."""

    status = 503
    type = "inference_failed"
