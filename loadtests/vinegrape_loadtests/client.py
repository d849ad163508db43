"""The part of the server's API that load tests and benchmarks use, and a minimal HTTP client."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

MODEL_NAME = "vinegrape"
PREDICTIONS_PATH = f"/predictions/{MODEL_NAME}"


@dataclass(frozen=True)
class HttpResponse:
    """One response over REST, or over gRPC with the status that it would have over REST.

    Attributes:
        status: the HTTP status; over gRPC, 200 or the code of the error in the details.
        body: the body; over gRPC, the field `prediction` or the details.
        retry_after: the header `retry-after`, or the trailing metadata of this name; empty if there is none.
    """

    status: int
    body: bytes
    retry_after: str = ""


def post(
    url: str,
    body: bytes,
    content_type: str = "application/octet-stream",
    timeout_s: float = 60,
    source: str | None = None,
) -> HttpResponse:
    """Send one POST request on a new connection, without a proxy.

    Args:
        url: a URL of the form http://host:port/path.
        body: the request's body.
        content_type: the body's media type.
        timeout_s: seconds to wait for the connection and for each read.
        source: the client's own address; the system chooses it if None.

    Raises:
        OSError: there is no connection, no response in time, or only a part of one.
    """
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(
        parts.netloc, timeout=timeout_s, source_address=(source, 0) if source else None
    )
    try:
        connection.request("POST", parts.path, body, {"Content-Type": content_type})
        response = connection.getresponse()
        return HttpResponse(response.status, response.read(), response.getheader("Retry-After", ""))
    except http.client.HTTPException as error:
        raise ConnectionError(f"incomplete response: {error!r}") from error
    finally:
        connection.close()


def instances_body(images: Iterable[bytes]) -> bytes:
    """Build the JSON body of a request with several encoded images."""
    return json.dumps({"instances": [{"b64": base64.b64encode(image).decode()} for image in images]}).encode()
