"""Open loops: requests are sent when they are due, independently of responses, as many independent clients do.

A latency counts from when its request was due. A client that waits for each response sends fewer requests while the
server is slow, and so leaves out the slowest ones (Tene, "How NOT to Measure Latency", 2015: coordinated omission).
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

import numpy as np

from vinegrape_loadtests.bench.closed_loop import LoadResult, percentiles

_TIMEOUT_S = 60
_LEAD_S = 0.1  # until the first request is due


def due_times(rate: float, seconds: float, *, poisson: bool, seed: int = 0) -> list[float]:
    """Return when requests are due, in seconds from the start, in ascending order.

    Args:
        rate: requests per second.
        seconds: duration.
        poisson: whether intervals are exponentially distributed, as from many independent clients; else they are equal.
        seed: seed of the random intervals.
    """
    count = max(1, round(rate * seconds))
    gaps = np.random.default_rng(seed).exponential(1 / rate, count) if poisson else np.full(count, 1 / rate)
    return list(np.cumsum(gaps))


def run(url: str, bodies: Sequence[bytes], due: Sequence[float]) -> tuple[LoadResult, list[float]]:
    """Send bodies in turn, each when it is due, on an idle connection; if all are busy, on a new one.

    Args:
        url: URL to post to.
        bodies: encoded images.
        due: seconds from the start at which each request is due.

    Returns:
        The result, and the latencies in milliseconds of all successful requests.
    """
    before = resource.getrusage(resource.RUSAGE_SELF)
    start = time.perf_counter()
    latencies = asyncio.run(_run(url, bodies, due))
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF)
    successes_ms = [1e3 * latency for latency in latencies if latency is not None]
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    failed = len(latencies) - len(successes_ms)
    return LoadResult(len(successes_ms), seconds, failed, percentiles(successes_ms), cpu_s), successes_ms


async def _run(url: str, bodies: Sequence[bytes], due: Sequence[float]) -> list[float | None]:
    client = _Client(url)
    origin = time.perf_counter() + _LEAD_S

    async def send(body: bytes, at: float) -> float | None:
        await asyncio.sleep(origin + at - time.perf_counter())
        try:
            success = await asyncio.wait_for(client.post(body), _TIMEOUT_S)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            return None
        return time.perf_counter() - origin - at if success else None

    try:
        return await asyncio.gather(*(send(bodies[i % len(bodies)], at) for i, at in enumerate(due)))
    finally:
        client.close()


class _Client:
    """An HTTP/1.1 client with persistent connections.

    It is written by hand and does only what is needed here, since it takes CPU time from the server's cores.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname, parts.port)
        self._head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, body: bytes) -> bool:
        """Send one request; return whether the response's status is 200."""
        connection = self._idle.pop() if self._idle else await asyncio.open_connection(*self._address)
        reader, writer = connection
        head = f"{self._head}Content-Type: application/octet-stream\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        response_head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(response_head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        if b"connection: close" in response_head:
            writer.close()
        else:
            self._idle.append(connection)
        return response_head.startswith(b"http/1.1 200")

    def close(self) -> None:
        """Close the idle connections."""
        for _, writer in self._idle:
            writer.close()
