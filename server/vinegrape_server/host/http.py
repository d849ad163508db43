"""An HTTP client for the ports and sockets of this server."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from vinegrape_server.settings import LOOPBACK


class Address(NamedTuple):
    """Where a server of this machine listens.

    Attributes:
        host: a host name or IPv4 address; 0.0.0.0 is reached through 127.0.0.1. With port 0, the path of a Unix socket.
        port: the TCP port, or 0.
    """

    host: str
    port: int


@dataclass(frozen=True)
class HttpResponse:
    """Status and body of a response."""

    status: int
    body: bytes


def get(
    address: Address,
    path: str,
    timeout_s: float,
    headers: Mapping[str, str] | None = None,
    tls: bool = False,
) -> HttpResponse:
    """Send a GET request and return the response, whatever its status.

    Args:
        address: where the server listens.
        path: path of the URL, with the leading slash.
        timeout_s: longest wait for the connection and for each part of the response.
        headers: request headers.
        tls: use TLS. The certificate is not checked: it has the name that clients use, and not 127.0.0.1.

    Raises:
        OSError: there is no response, or it is incomplete.
    """
    return _request("GET", address, path, timeout_s, None, headers or {}, tls)


def post(
    address: Address, path: str, timeout_s: float, body: bytes, headers: Mapping[str, str] | None = None
) -> HttpResponse:
    """Send a POST request and return the response, whatever its status; see `get`."""
    return _request("POST", address, path, timeout_s, body, headers or {}, tls=False)


def send(method: str, address: Address, path: str, timeout_s: float) -> HttpResponse:
    """Send a request with an empty body and return the response, whatever its status; see `get`."""
    return _request(method, address, path, timeout_s, b"", {}, tls=False)


def _request(
    method: str,
    address: Address,
    path: str,
    timeout_s: float,
    body: bytes | None,
    headers: Mapping[str, str],
    tls: bool,
) -> HttpResponse:
    connection = _Connection(address, timeout_s, tls)
    try:
        connection.request(method, path, body, {"Connection": "close", **headers})
        response = connection.getresponse()
        return HttpResponse(response.status, response.read())
    except http.client.HTTPException as error:
        raise ConnectionError(f"incomplete response: {error!r}") from error
    finally:
        connection.close()


def reachable(host: str) -> str:
    """Return an address under which this machine reaches a server that listens on `host`."""
    return LOOPBACK if host == "0.0.0.0" else host  # noqa: S104


class _Connection(http.client.HTTPConnection):
    """A connection over TCP, TLS or a Unix socket."""

    def __init__(self, address: Address, timeout_s: float, tls: bool) -> None:
        self._address = address
        self._tls = tls
        super().__init__(reachable(address.host) if address.port else "localhost", address.port or None, timeout_s)

    def connect(self) -> None:
        """Connect to the port or the socket."""
        if self._address.port:
            super().connect()
        else:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._address.host)
        if self._tls:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            self.sock = context.wrap_socket(self.sock)
