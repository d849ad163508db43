"""An HTTP/1.1 client for asyncio that needs little CPU time on the cores that it shares with the server."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from vinegrape_loadtests.client import PREDICTIONS_PATH


class HttpAnswer(NamedTuple):
    """A response. The head is in lower case."""

    status: int
    head: bytes
    body: bytes


def build_request(
    body: bytes = b"",
    content_type: str = "application/octet-stream",
    *,
    method: str = "POST",
    path: str = PREDICTIONS_PATH,
    headers: tuple[str, ...] = (),
) -> bytes:
    """Build one HTTP/1.1 request with a Content-Length.

    Args:
        body: the request's body.
        content_type: the body's media type.
        method: the method.
        path: the path, with the leading slash.
        headers: further header lines, such as "Connection: close".
    """
    lines = [f"{method} {path} HTTP/1.1", "Host: vinegrape", *headers]
    if body or method == "POST":
        lines += [f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


class HttpClient:
    """A client of one address that keeps its connections. A request takes an idle connection, or opens a new one.

    It never sends a request a second time.

    Args:
        host: the server's IPv4 address.
        port: the server's port.
        source: the client's own address.
    """

    def __init__(self, host: str, port: int, source: str = "127.0.0.1") -> None:
        self._host, self._port, self._source = host, port, source
        self._idle: list[_Connection] = []

    async def send(self, request: bytes, timeout_s: float) -> HttpAnswer:
        """Send one request and return the response. The connection is closed after an error.

        Raises:
            OSError: there is no connection, or no complete response.
            TimeoutError: the response is not complete in time; the connection is closed.
        """
        async with asyncio.timeout(timeout_s):
            connection = await self._connection()
            try:
                answer = await connection.send(request)
            except BaseException:
                connection.close()
                raise
        if b"\r\nconnection: close" in answer.head:
            connection.close()
        else:
            self._idle.append(connection)
        return answer

    def close(self) -> None:
        """Close the idle connections."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    async def _connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.open:
                return connection
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, self._host, self._port, local_addr=(self._source, 0))
        return connection


class _Connection(asyncio.Protocol):
    """One connection, with one request at a time."""

    def __init__(self) -> None:
        self.open = False
        self._transport: asyncio.Transport | None = None
        self._response: asyncio.Future[HttpAnswer] | None = None
        self._received = bytearray()

    async def send(self, request: bytes) -> HttpAnswer:
        if self._transport is None or not self.open:
            raise ConnectionResetError("the connection is closed")
        self._response = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._response

    def close(self) -> None:
        self.open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self._transport, self.open = transport, True

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._finish(closed=False)

    def eof_received(self) -> None:
        self.open = False
        self._finish(closed=True)

    def connection_lost(self, error: Exception | None) -> None:
        self.open = False
        self._finish(closed=True)
        if self._response is not None and not self._response.done():
            self._response.set_exception(error or ConnectionResetError("closed without a complete response"))

    def _finish(self, closed: bool) -> None:
        """Complete the response if everything has been received; without Content-Length it ends with the connection."""
        end = self._received.find(b"\r\n\r\n")
        if end < 0 or self._response is None or self._response.done():
            return
        head = bytes(self._received[:end]).lower()
        name, body = head.find(b"\r\ncontent-length:"), end + 4
        if name < 0 and not closed:
            return
        length = len(self._received) - body if name < 0 else int(head[name + 17 :].split(b"\r\n", 1)[0])
        if len(self._received) < body + length:
            return
        answer = HttpAnswer(int(head[9:12]), head, bytes(self._received[body : body + length]))
        del self._received[: body + length]
        self._response.set_result(answer)
