"""Read the JSON of responses, over REST and over gRPC."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from vinegrape_client.errors import UnexpectedResponse, VinegrapeError, make_error


def read_body(status: int, headers: Mapping[str, str], body: bytes) -> Any:
    """Return the parsed JSON of a response with status 200.

    Args:
        status: the HTTP status.
        headers: the headers, with names in lower case.
        body: the body.

    Raises:
        VinegrapeError: the response is an error, or is not JSON.
    """
    if status != HTTPStatus.OK:
        raise read_error(status, headers, body)
    try:
        return json.loads(body)
    except ValueError as error:
        raise UnexpectedResponse(f"The response is not JSON: {_excerpt(body)}") from error


def read_error(status: int, headers: Mapping[str, str], body: bytes) -> VinegrapeError:
    """Return the exception for a response that is an error.

    The errors of TorchServe itself and of proxies have another form than those of vinegrape. Their status decides.
    """
    parsed = error_in(body)
    type_, message = (str(parsed["type"]), str(parsed.get("message", ""))) if parsed else ("", _excerpt(body))
    return make_error(
        status,
        type_,
        message or f"status {status}",
        retry_after_s=_seconds(headers.get("retry-after", "")),
        request_id=headers.get("x-request-id", ""),
    )


def error_in(body: bytes) -> dict[str, Any] | None:
    """Return `{"code", "type", "message"}` of an error in vinegrape's form; None if it has another form."""
    try:
        error = json.loads(body)["error"]
        int(error["code"]), error["type"]
    except (ValueError, LookupError, TypeError):
        return None
    return dict(error)


def _seconds(retry_after: str) -> float | None:
    """Return the seconds to wait; the header Retry-After is a number of seconds or a date."""
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None


def _excerpt(body: bytes) -> str:
    return " ".join(body[:200].decode(errors="replace").split())
