"""An HTTP client for the ports of this server."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass

from vinegrape_server.settings import LOOPBACK

# Requests to this machine must not go through a proxy that the environment names
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class HttpResponse:
    """Status and body of a response."""

    status: int
    body: bytes


def get(host: str, port: int, path: str, timeout_s: float, headers: Mapping[str, str] | None = None) -> HttpResponse:
    """Send a GET request and return the response, whatever its status.

    Args:
        host: the address that the server listens on; 0.0.0.0 is reached through 127.0.0.1.
        port: the server's port.
        path: path of the URL, with the leading slash.
        timeout_s: longest wait for the connection and for each part of the response.
        headers: request headers.

    Raises:
        OSError: there is no response, or it is incomplete.
    """
    request = urllib.request.Request(f"http://{reachable(host)}:{port}{path}", headers=dict(headers or {}))
    try:
        with _DIRECT.open(request, timeout=timeout_s) as response:
            return HttpResponse(response.status, response.read())
    except urllib.error.HTTPError as error:
        with error:
            return HttpResponse(error.code, error.read())
    except urllib.error.URLError as error:
        raise ConnectionError(str(error.reason)) from error
    except http.client.HTTPException as error:
        raise ConnectionError(f"incomplete response: {error!r}") from error


def reachable(host: str) -> str:
    """Return an address under which this machine reaches a server that listens on `host`."""
    return LOOPBACK if host == "0.0.0.0" else host  # noqa: S104
