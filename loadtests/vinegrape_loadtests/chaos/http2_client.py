"""A client of REST over HTTP/2 without TLS ("prior knowledge"), on one connection at a time."""

from __future__ import annotations

import asyncio
import struct

from vinegrape_loadtests.chaos import http2_frames as h2
from vinegrape_loadtests.chaos.http_client import HttpAnswer
from vinegrape_loadtests.client import PREDICTIONS_PATH


class Http2Client:
    """A client of one address that keeps its connection until the server says GOAWAY, and then opens a new one.

    Requests whose stream the server has not processed, as its GOAWAY says, are sent again, as RFC 9113 (6.8) allows.

    Args:
        host: the server's IPv4 address.
        port: the server's port.
        source: the client's own address.
    """

    def __init__(self, host: str, port: int, source: str = "127.0.0.1") -> None:
        self._address, self._source = (host, port), source
        self._connection: _Connection | None = None
        self._opening = asyncio.Lock()

    async def send(self, body: bytes, timeout_s: float) -> HttpAnswer:
        """Post a body to the prediction path and return the response; its head is empty.

        Args:
            body: at most 65,535 bytes, the initial window of a stream.
            timeout_s: seconds to wait.

        Raises:
            OSError: there is no connection, or no complete response.
            TimeoutError: the response is not complete in time.
        """
        async with asyncio.timeout(timeout_s):
            while True:
                connection = await self._open()
                answer = await connection.post(body)
                if answer is not None:
                    return answer

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()

    async def _open(self) -> _Connection:
        async with self._opening:
            if self._connection is None or not self._connection.open:
                loop = asyncio.get_running_loop()
                _, self._connection = await loop.create_connection(
                    _Connection, *self._address, local_addr=(self._source, 0)
                )
            return self._connection


class _Connection(asyncio.Protocol):
    """One connection with any number of streams."""

    def __init__(self) -> None:
        self.open = True  # for further streams
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._next_stream = 1
        self._window = h2.WINDOW
        self._window_grew = asyncio.Event()
        self._responses: dict[int, asyncio.Future[HttpAnswer | None]] = {}
        self._status: dict[int, int] = {}
        self._bodies: dict[int, bytearray] = {}

    async def post(self, body: bytes) -> HttpAnswer | None:
        """Send one request; None if the server has said that it has not processed it."""
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        response: asyncio.Future[HttpAnswer | None] = asyncio.get_running_loop().create_future()
        self._responses[stream] = response
        self._bodies[stream] = bytearray()
        block = h2.post_headers(
            PREDICTIONS_PATH, content_type="application/octet-stream", content_length=str(len(body))
        )
        try:
            self._write(h2.frame(h2.HEADERS, h2.END_HEADERS, stream, block))
            for start in range(0, len(body), h2.MAX_FRAME):
                part = body[start : start + h2.MAX_FRAME]
                while self._window < len(part) and not response.done():
                    self._window_grew.clear()
                    await self._window_grew.wait()
                if response.done():  # an error before the whole body was sent
                    break
                self._window -= len(part)
                last = start + h2.MAX_FRAME >= len(body)
                self._write(h2.frame(h2.DATA, h2.END_STREAM if last else 0, stream, part))
            return await response
        finally:
            del self._responses[stream], self._bodies[stream]
            self._status.pop(stream, None)

    def close(self) -> None:
        self.open = False
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self._transport = transport
        self._write(h2.PREFACE + h2.frame(h2.SETTINGS, 0, 0))

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (received := h2.take_frame(self._received)) is not None:
            self._handle(received)

    def connection_lost(self, error: Exception | None) -> None:
        self.open = False
        self._window_grew.set()
        for response in self._responses.values():
            if not response.done():
                response.set_exception(error or ConnectionResetError("closed without a complete response"))

    def _handle(self, received: h2.Frame) -> None:
        type_, flags, stream, payload = received
        if type_ == h2.SETTINGS and not flags & h2.ACK:
            self._write(h2.frame(h2.SETTINGS, h2.ACK, 0))
        elif type_ == h2.PING and not flags & h2.ACK:
            self._write(h2.frame(h2.PING, h2.ACK, 0, payload))
        elif type_ == h2.WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload, "big")
            self._window_grew.set()
        elif type_ == h2.GOAWAY:
            self._go_away(struct.unpack(">I", payload[:4])[0])
        elif type_ == h2.RST_STREAM and stream in self._responses:
            self._finish(stream, ConnectionResetError("the stream was reset"))
        elif type_ == h2.HEADERS and stream in self._responses:
            self._status.setdefault(stream, h2.status(payload))
            if flags & h2.END_STREAM:
                self._finish(stream)
        elif type_ == h2.DATA and stream in self._responses:
            self._bodies[stream] += payload
            if payload:  # give the windows back
                grown = len(payload).to_bytes(4, "big")
                self._write(h2.frame(h2.WINDOW_UPDATE, 0, 0, grown))
            if flags & h2.END_STREAM:
                self._finish(stream)

    def _go_away(self, last_stream: int) -> None:
        self.open = False
        for stream, response in self._responses.items():
            if stream > last_stream and not response.done():
                response.set_result(None)
        self._window_grew.set()

    def _finish(self, stream: int, error: OSError | None = None) -> None:
        response = self._responses[stream]
        if response.done():
            return
        if error is not None:
            response.set_exception(error)
        else:
            response.set_result(HttpAnswer(self._status.get(stream, 0), b"", bytes(self._bodies[stream])))
        self._window_grew.set()

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
