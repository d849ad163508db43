"""Every error that is ours. `answer.error_body` is the only place where one becomes a response.

VinegrapeError
├── SettingError          a setting that cannot work, found at start
├── ArchiveError          an archive or its metadata that this code cannot use
└── RequestError          one request's, or one image's, fault; never its neighbours'
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
    """Base of all our errors; its text says what was wrong, with the value, and what to do instead."""


class SettingError(VinegrapeError):
    """A setting that cannot work."""


class ArchiveError(VinegrapeError):
    """A model archive, or its metadata, that this code cannot use."""


class RequestError(VinegrapeError):
    """Something wrong with one request or one image of it."""

    status: ClassVar[int]
    type: ClassVar[str]


class BadRequest(RequestError):
    """The request itself cannot be read, for example broken JSON."""

    status = 400
    type = "bad_request"


class NoImage(RequestError):
    """The request carries no image."""

    status = 400
    type = "no_image"


class TooLarge(RequestError):
    """Too many bytes, pixels or instances."""

    status = 413
    type = "too_large"


class UnsupportedFormat(RequestError):
    """The bytes are not an image format that is served."""

    status = 415
    type = "unsupported_format"


class BrokenImage(RequestError):
    """The bytes begin like an image of a served format and cannot be decoded."""

    status = 422
    type = "broken_image"


class InferenceFailed(RequestError):
    """The network could not be run; the image may be fine."""

    status = 503
    type = "inference_failed"
