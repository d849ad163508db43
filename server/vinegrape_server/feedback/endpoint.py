"""`POST /feedback`: from the body of a request to the response."""

from __future__ import annotations

import http
import json
import sqlite3
from dataclasses import dataclass
from email.message import Message

from vinegrape_handler.errors import BadRequest, RequestError, TooLarge, Unavailable, UnsupportedFormat, error_body
from vinegrape_server.feedback.request import MAX_BYTES, read_feedback
from vinegrape_server.feedback.store import FeedbackStore
from vinegrape_server.plan import Served

_JSON = "application/json"


@dataclass(frozen=True)
class FeedbackEndpoint:
    """Stores the feedback of requests.

    Attributes:
        store: keeps the feedback.
        served: what is served.
    """

    store: FeedbackStore
    served: Served

    def body_size(self, headers: Message) -> int:
        """Return the size of a request's body in bytes, from the headers.

        Raises:
            BadRequest: the headers do not state it.
            TooLarge: the body is too large.
        """
        length = headers.get("Content-Length", "")
        if "Transfer-Encoding" in headers or not (length.isascii() and length.isdecimal()):
            raise BadRequest("The request has no valid Content-Length. Send the body with one, and not in chunks.")
        if len(length) > len(str(MAX_BYTES)) or int(length) > MAX_BYTES:
            raise TooLarge(f"The body has {length[:20]} bytes; at most {MAX_BYTES} are accepted.")
        return int(length)

    def respond(self, headers: Message, body: bytes) -> tuple[http.HTTPStatus, bytes]:
        """Store the feedback of a request, and return the status and the JSON of the response.

        Raises:
            RequestError: the feedback is invalid, or cannot be stored.
        """
        # A page of another site can send a form or text to this port from a browser, but not JSON
        content_type = headers.get("Content-Type", "")
        if content_type.partition(";")[0].strip().lower() != _JSON:
            raise UnsupportedFormat(f"Content-Type is {content_type[:64]!r}; it must be {_JSON}.")
        metadata = self.served.plan.archive.metadata
        feedback = read_feedback(body, metadata.version, metadata.classes)
        try:
            self.store.add(feedback)
        except sqlite3.Error as error:
            raise Unavailable(f"The feedback cannot be stored: {error}. Try again later.") from error
        return http.HTTPStatus.OK, _encode({"stored": len(feedback)})


def error_response(error: RequestError) -> tuple[http.HTTPStatus, bytes]:
    """Return the status and the JSON of an error."""
    return http.HTTPStatus(error.status), _encode(error_body(error))


def _encode(body: object) -> bytes:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
