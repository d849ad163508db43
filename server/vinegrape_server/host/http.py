"""GET from a port of our own."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass

from vinegrape_server.settings import LOOPBACK

# To ourselves, and so past any proxy that the environment names
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Answer:
    """Status and body of one answer."""

    status: int
    body: bytes


def get(host: str, port: int, path: str, timeout_s: float, headers: Mapping[str, str] | None = None) -> Answer:
    """Ask once, whatever the status.

    Args:
        host: on which the port is bound.
        port: to ask.
        path: with its slash.
        timeout_s: without a byte.
        headers: to send.

    Raises:
        OSError: nobody answers, or only in part.
    """
    request = urllib.request.Request(f"http://{reachable(host)}:{port}{path}", headers=dict(headers or {}))
    try:
        with _DIRECT.open(request, timeout=timeout_s) as response:
            return Answer(response.status, response.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read())
    except http.client.HTTPException as error:
        raise ConnectionError(f"half an answer: {error!r}") from error


def reachable(host: str) -> str:
    """An address under which this machine reaches what listens on `host`."""
    return LOOPBACK if host == "0.0.0.0" else host  # noqa: S104
