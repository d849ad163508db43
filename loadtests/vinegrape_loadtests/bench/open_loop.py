"""Requests that are sent when they are due, however long the answers take: what a crowd of strangers does.

A latency counts from when its request was due. A client that waits for an answer before it asks again would leave out
the very requests that a slow moment hits (Tene, "How NOT to Measure Latency", 2015: coordinated omission).
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

import numpy as np

from vinegrape_loadtests.bench.closed_loop import Load, percentiles

_TIMEOUT_S = 60
_LEAD_S = 0.1  # until the first request is due


def due_times(rate: float, seconds: float, *, poisson: bool, seed: int = 0) -> list[float]:
    """When requests are due, in seconds from the beginning.

    Args:
        rate: requests a second.
        seconds: of requests.
        poisson: as from many independent clients; else evenly, as most load generators send them.
        seed: of the arrivals.
    """
    count = max(1, round(rate * seconds))
    gaps = np.random.default_rng(seed).exponential(1 / rate, count) if poisson else np.full(count, 1 / rate)
    return list(np.cumsum(gaps))


def run(url: str, bodies: Sequence[bytes], due: Sequence[float]) -> tuple[Load, list[float]]:
    """Post bodies in turn, each when it is due, on connections that are kept: a new one where all are busy.

    Returns:
        What came of it, and the latencies in milliseconds from when each request was due.
    """
    before = resource.getrusage(resource.RUSAGE_SELF)
    start = time.perf_counter()
    latencies = asyncio.run(_run(url, bodies, due))
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF)
    good = [1e3 * latency for latency in latencies if latency is not None]
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Load(len(good), seconds, len(latencies) - len(good), percentiles(good), cpu_s), good


async def _run(url: str, bodies: Sequence[bytes], due: Sequence[float]) -> list[float | None]:
    client = _Client(url)
    origin = time.perf_counter() + _LEAD_S

    async def ask(body: bytes, at: float) -> float | None:
        await asyncio.sleep(origin + at - time.perf_counter())
        try:
            answered = await asyncio.wait_for(client.post(body), _TIMEOUT_S)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            return None
        return time.perf_counter() - origin - at if answered else None

    try:
        return await asyncio.gather(*(ask(bodies[i % len(bodies)], at) for i, at in enumerate(due)))
    finally:
        client.close()


class _Client:
    """HTTP/1.1 on connections that are kept; does no more than it must, for its time is not the server's."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname, parts.port)
        self._head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, body: bytes) -> bool:
        """Whether the answer is a success."""
        connection = self._idle.pop() if self._idle else await asyncio.open_connection(*self._address)
        reader, writer = connection
        head = f"{self._head}Content-Type: application/octet-stream\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(answer.partition(b"content-length:")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        if b"connection: close" in answer:
            writer.close()
        else:
            self._idle.append(connection)
        return answer.startswith(b"http/1.1 200")

    def close(self) -> None:
        """Close what is idle."""
        for _, writer in self._idle:
            writer.close()
