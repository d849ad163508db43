"""The same request to two addresses in turn, on one connection each: what one of them adds to the latency of the other.

Both latencies are measured within milliseconds of each other, so the speed of the machine is the same for both.
"""

from __future__ import annotations

import http.client
import random
import time
from collections.abc import Sequence
from http import HTTPStatus
from urllib.parse import urlsplit

from vinegrape_loadtests.bench.closed_loop import LoadResult, percentiles

_TIMEOUT_S = 60


def run(urls: Sequence[str], body: bytes, seconds: float, seed: int) -> list[LoadResult]:
    """Send an image to every URL, one request at a time, until the time is over.

    Args:
        urls: URLs to post to.
        body: an encoded image.
        seconds: duration.
        seed: seed of the order within each turn. With a fixed order, TorchServe would give each address its own worker.

    Returns:
        One result per URL, in the order of the URLs; the CPU time of the client is not measured.

    Raises:
        OSError: a connection fails.
    """
    order = random.Random(seed)  # noqa: S311
    clients = [_Client(url) for url in urls]
    try:
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            for client in order.sample(clients, len(clients)):
                client.post(body)
        return [client.result() for client in clients]
    finally:
        for client in clients:
            client.close()


class _Client:
    """One kept connection, and the latencies of its requests."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.netloc, timeout=_TIMEOUT_S)
        self._path = parts.path
        self._latencies_ms: list[float] = []
        self._failed = 0

    def post(self, body: bytes) -> None:
        """Send one request, and wait for the response."""
        start = time.perf_counter()
        self._connection.request("POST", self._path, body, {"Content-Type": "application/octet-stream"})
        response = self._connection.getresponse()
        response.read()
        if response.status == HTTPStatus.OK:
            self._latencies_ms.append(1e3 * (time.perf_counter() - start))
        else:
            self._failed += 1

    def result(self) -> LoadResult:
        """Return the result so far. Its duration is the time that this connection's own requests took."""
        seconds = sum(self._latencies_ms) / 1e3
        return LoadResult(len(self._latencies_ms), seconds, self._failed, percentiles(self._latencies_ms), 0)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
