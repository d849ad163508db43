"""REST, with httpx."""

from __future__ import annotations

import asyncio
import math
import ssl
import time
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any

import httpx

from vinegrape_client.errors import ConnectionFailed, DeadlineExceeded, UnexpectedResponse, VinegrapeError
from vinegrape_client.options import USER_AGENT, Options
from vinegrape_client.responses import read_body

_PIECE_BYTES = 1 << 16
_BINARY = "application/octet-stream"


class Rest:
    """Sends requests over REST, and keeps the connections open for the next ones."""

    def __init__(self, options: Options) -> None:
        self._path = f"/predictions/{options.model}"
        self._explained = f"/explanations/{options.model}"
        self._client = httpx.Client(**_client_options(options))

    def predict(self, image: bytes, timeout_s: float) -> Any:
        """Send an image; return the parsed JSON of the response."""
        return read_body(*self._send("POST", self._path, timeout_s, image))

    def explain(self, image: bytes, class_: str | None, timeout_s: float) -> Any:
        """Send an image to be explained; return the parsed JSON of the response."""
        body, content_type = _explanation_body(image, class_)
        return read_body(*self._send("POST", self._explained, timeout_s, body, content_type))

    def describe(self, timeout_s: float) -> Any:
        """Return the parsed JSON that describes the model."""
        return read_body(*self._send("GET", self._path, timeout_s))

    def ready(self, timeout_s: float) -> bool:
        """Return whether the server is ready."""
        return self._send("GET", "/ping", timeout_s)[0] == HTTPStatus.OK

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _send(
        self, method: str, path: str, timeout_s: float, body: bytes = b"", content_type: str = _BINARY
    ) -> tuple[int, httpx.Headers, bytes]:
        ends_at = time.monotonic() + timeout_s
        headers = _headers(method, timeout_s, body, content_type)
        # httpx limits the time of each single operation. The body goes piece by piece, so that the time is checked
        # between the pieces.
        pieces = _until(ends_at, timeout_s, _pieces(body)) if body else None
        try:
            with self._client.stream(method, path, headers=headers, content=pieces, timeout=timeout_s) as response:
                received = b"".join(_until(ends_at, timeout_s, response.iter_bytes()))
        except httpx.RequestError as error:
            raise _failure(error, timeout_s) from error
        return response.status_code, response.headers, received


class AsyncRest:
    """The same for asyncio."""

    def __init__(self, options: Options) -> None:
        self._path = f"/predictions/{options.model}"
        self._explained = f"/explanations/{options.model}"
        self._client = httpx.AsyncClient(**_client_options(options))

    async def predict(self, image: bytes, timeout_s: float) -> Any:
        """Send an image; return the parsed JSON of the response."""
        return read_body(*await self._send("POST", self._path, timeout_s, image))

    async def explain(self, image: bytes, class_: str | None, timeout_s: float) -> Any:
        """Send an image to be explained; return the parsed JSON of the response."""
        body, content_type = _explanation_body(image, class_)
        return read_body(*await self._send("POST", self._explained, timeout_s, body, content_type))

    async def describe(self, timeout_s: float) -> Any:
        """Return the parsed JSON that describes the model."""
        return read_body(*await self._send("GET", self._path, timeout_s))

    async def ready(self, timeout_s: float) -> bool:
        """Return whether the server is ready."""
        return (await self._send("GET", "/ping", timeout_s))[0] == HTTPStatus.OK

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _send(
        self, method: str, path: str, timeout_s: float, body: bytes = b"", content_type: str = _BINARY
    ) -> tuple[int, httpx.Headers, bytes]:
        headers = _headers(method, timeout_s, body, content_type)
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._client.request(method, path, headers=headers, content=body or None, timeout=None)
        except TimeoutError as error:
            raise _late(timeout_s) from error
        except httpx.RequestError as error:
            raise _failure(error, timeout_s) from error
        return response.status_code, response.headers, response.content


def _client_options(options: Options) -> dict[str, Any]:
    return {
        "base_url": options.url,
        "headers": {"user-agent": USER_AGENT, **options.headers},
        "verify": ssl.create_default_context(cafile=options.ca_file) if options.ca_file else True,
        # The caller bounds how many requests run at the same time; each may keep its connection
        "limits": httpx.Limits(max_connections=None, max_keepalive_connections=None),
    }


def _headers(method: str, timeout_s: float, body: bytes, content_type: str) -> dict[str, str]:
    headers = {"accept": "application/json", "x-request-timeout-ms": str(math.ceil(1000 * timeout_s))}
    if method == "POST":
        headers |= {"content-type": content_type, "content-length": str(len(body))}
    return headers


def _explanation_body(image: bytes, class_: str | None) -> tuple[bytes, str]:
    """Return a body and its content type: the image, or a form with the image and the class to explain.

    A class in the query would be ignored by a server without the edge: TorchServe drops the query.
    """
    if class_ is None:
        return image, _BINARY
    form = httpx.Request("POST", "http://form", files={"image": image}, data={"class": class_})
    return form.read(), form.headers["content-type"]


def _pieces(body: bytes) -> Iterator[bytes]:
    return (body[start : start + _PIECE_BYTES] for start in range(0, len(body), _PIECE_BYTES))


def _until(ends_at: float, timeout_s: float, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the pieces of a body until a monotonic time.

    Raises:
        DeadlineExceeded: the time has passed.
    """
    for piece in pieces:
        if time.monotonic() > ends_at:
            raise _late(timeout_s)
        yield piece


def _late(timeout_s: float) -> DeadlineExceeded:
    return DeadlineExceeded(f"The server has not responded within {timeout_s:.3g} s.")


def _failure(error: httpx.RequestError, timeout_s: float) -> VinegrapeError:
    """Return the exception for a request that got no complete response."""
    if isinstance(error, httpx.TimeoutException):
        return _late(timeout_s)
    if not isinstance(error, httpx.TransportError):
        return UnexpectedResponse(f"The response cannot be read: {error}")
    failure = ConnectionFailed(f"No response from {error.request.url.copy_with(path='/')}: {error or repr(error)}")
    failure.can_retry = not _is_certificate_error(error)
    return failure


def _is_certificate_error(error: BaseException | None) -> bool:
    """Return whether the server's certificate is the reason of an error: another attempt would fail too."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
