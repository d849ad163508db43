"""An HTTP/1.1 client that keeps its connections to one server of this machine.

aiohttp takes 0.3 ms of CPU time per request of 120 KB, this client 0.13 ms (docs/notes/performance-log.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterable
from typing import NamedTuple

import httptools

_MAX_IDLE_S = 30


class Response(NamedTuple):
    """Status, headers and body of one response. The names of the headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class HttpClient:
    """Sends requests to one server, each on a connection that carries no other request at the same time.

    Args:
        address: host and port, or the path of a Unix socket.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._idle: list[_Connection] = []

    async def request(self, method: str, path: str, headers: Iterable[tuple[str, str]], body: bytes = b"") -> Response:
        """Send a request and return its response, whatever its status.

        A request is sent once. If this coroutine is cancelled, its connection is closed: the edge then removes the
        request from its queue.

        Raises:
            OSError: there is no connection, or no complete response.
        """
        connection = self._take_idle() or await self._connect()
        lines = [f"{method} {path} HTTP/1.1", "host: localhost", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers]
        try:
            response = await connection.exchange("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
        except BaseException:
            connection.close()
            raise
        if connection.reusable:
            connection.idle_since = time.monotonic()
            self._idle.append(connection)
        else:
            connection.close()
        return response

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()

    def _take_idle(self) -> _Connection | None:
        """Return the connection that was used last; close those that have been idle for long."""
        while self._idle and time.monotonic() - self._idle[0].idle_since > _MAX_IDLE_S:
            self._idle.pop(0).close()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open():
                return connection
            connection.close()
        return None

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        host, _, port = self._address.rpartition(":")
        is_tcp = port.isdecimal() and "/" not in port
        connected = socket.socket(socket.AF_INET if is_tcp else socket.AF_UNIX)
        connected.setblocking(False)
        try:
            await loop.sock_connect(connected, (host, int(port)) if is_tcp else self._address)
            connect = loop.create_connection if is_tcp else loop.create_unix_connection
            _, connection = await connect(lambda: _Connection(connected), sock=connected)
        except BaseException:
            connected.close()
            raise
        return connection


class _Connection(asyncio.Protocol):
    """One connection.

    Attributes:
        idle_since: monotonic time of the last response.
        reusable: whether the server keeps the connection open after the last response.
    """

    def __init__(self, connected: socket.socket) -> None:
        self.idle_since = 0.0
        self.reusable = False
        self._socket = connected
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._response: asyncio.Future[Response] | None = None

    async def exchange(self, request: bytes) -> Response:
        """Send an encoded request and return the response."""
        self._response = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._response

    def is_open(self) -> bool:
        """Return whether the server has neither closed the connection nor sent anything unexpected."""
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return not self._transport.is_closing()
        except OSError:
            pass
        return False

    def close(self) -> None:
        """Close the connection at once, with what it has not sent."""
        self._transport.abort()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionError(f"no valid HTTP: {error}"))
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None and self._response is not None and not self._response.done():
            # The server may have answered and closed the connection before it had read the whole body
            with contextlib.suppress(OSError):
                self.data_received(self._socket.recv(1 << 16))
        self._fail(error or ConnectionError("The server has closed the connection without a response."))

    # What the parser calls

    def on_message_begin(self) -> None:
        self._headers, self._body = {}, []

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, data: bytes) -> None:
        self._body.append(data)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        self.reusable = self._parser.should_keep_alive() and not self._transport.get_write_buffer_size()
        if self._response is not None and not self._response.done():
            self._response.set_result(Response(status, self._headers, b"".join(self._body)))

    def _fail(self, error: Exception) -> None:
        if self._response is not None and not self._response.done():
            self._response.set_exception(error)
