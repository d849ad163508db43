"""Raw connections: clients that send what no HTTP library sends, from their own loopback address."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Iterator
from typing import NamedTuple

from vinegrape_loadtests.chaos.http_client import build_request

# Not the address of the good clients: limits for one client's address must not hit others
ATTACKER = "127.0.0.2"
TIMEOUT_S = 30.0
CLOSED, RESET, TIMEOUT = "closed", "reset", "timeout"
_CHUNK = 65_536


class RawResponse(NamedTuple):
    """A response as it was received.

    Attributes:
        outcome: the status, such as "200"; or "closed", "reset" or "timeout" if there is no complete response.
        head: in lower case.
        body: the body.
    """

    outcome: str
    head: bytes = b""
    body: bytes = b""


@contextlib.contextmanager
def connected(address: tuple[str, int], source: str = ATTACKER, timeout_s: float = TIMEOUT_S) -> Iterator[Reader]:
    """Open a connection, and close it at the end of the block.

    Raises:
        OSError: there is no connection.
    """
    with socket.create_connection(address, timeout_s, (source, 0)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield Reader(connection)


class Reader:
    """One connection with what was received and not read yet."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._received = bytearray()

    def send(self, data: bytes) -> None:
        """Send everything; ignore that the server has closed the connection, since its response may be there."""
        with contextlib.suppress(ConnectionError, TimeoutError):
            self.socket.sendall(data)

    def response(self) -> RawResponse:
        """Read one response."""
        try:
            while (end := self._received.find(b"\r\n\r\n")) < 0:
                if not self._receive():
                    return RawResponse(CLOSED)
            head = bytes(self._received[:end]).lower()
            del self._received[: end + 4]
            if head[9:12] == b"100":
                return RawResponse("100", head)
            _, found, rest = head.partition(b"\r\ncontent-length:")
            length = int(rest.partition(b"\r\n")[0]) if found else None
            while length is None or len(self._received) < length:
                if not self._receive():
                    break
            body = bytes(self._received[:length])
            del self._received[:length]
            return RawResponse(head[9:12].decode("ascii", "replace"), head, body)
        except ConnectionError:
            return RawResponse(RESET)
        except TimeoutError:
            return RawResponse(TIMEOUT)

    def drain(self) -> int | None:
        """Read what has arrived, without waiting; return the number of bytes, or None if the server has closed.

        Raises:
            ConnectionError: the server has reset the connection.
        """
        total = 0
        while select.select([self.socket], [], [], 0)[0]:
            part = self.socket.recv(_CHUNK)
            if not part:
                return None
            total += len(part)
        return total

    def wait_for_end(self, timeout_s: float) -> str:
        """Read until the server closes the connection; return "closed" (FIN), "reset" (RST) or "timeout"."""
        deadline = time.monotonic() + timeout_s
        try:
            while True:
                self.socket.settimeout(max(0.01, deadline - time.monotonic()))
                if not self.socket.recv(_CHUNK):
                    return CLOSED
        except ConnectionError:
            return RESET
        except TimeoutError:
            return TIMEOUT

    def _receive(self) -> bool:
        data = self.socket.recv(_CHUNK)
        self._received += data
        return bool(data)


def exchange(
    address: tuple[str, int], data: bytes, source: str = ATTACKER, timeout_s: float = TIMEOUT_S
) -> tuple[RawResponse, float]:
    """Send bytes on a new connection; return the first response and the seconds that it took."""
    start = time.monotonic()
    try:
        with connected(address, source, timeout_s) as connection:
            connection.send(data)
            response = connection.response()
    except TimeoutError:
        response = RawResponse(TIMEOUT)
    except OSError as error:
        response = RawResponse(type(error).__name__)
    return response, time.monotonic() - start


def post(
    address: tuple[str, int], body: bytes, content_type: str = "application/octet-stream", timeout_s: float = TIMEOUT_S
) -> tuple[RawResponse, float]:
    """Post a body on a new connection that closes after it."""
    return exchange(address, build_request(body, content_type, headers=("Connection: close",)), timeout_s=timeout_s)
