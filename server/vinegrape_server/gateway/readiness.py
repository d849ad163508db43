"""Whether the server is ready, as its operations port reports."""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus

from vinegrape_server.gateway.http_client import HttpClient

_VALID_S = {True: 1.0, False: 0.1}
_TIMEOUT_S = 1


class Readiness:
    """Reads `/readyz`. The result is kept for a second, or for 0.1 s if the server is not ready.

    Args:
        operations: host and port of the operations port.

    Attributes:
        stopping: set once this process stops; then the server is not ready.
    """

    def __init__(self, operations: str) -> None:
        self.stopping = asyncio.Event()
        self._client = HttpClient(operations)
        self._lock = asyncio.Lock()
        self._ready, self._read_at = False, -1.0

    async def is_ready(self) -> bool:
        """Return whether the server is ready."""
        async with self._lock:  # calls at the same time share one request
            if time.monotonic() - self._read_at > _VALID_S[self._ready]:
                self._ready = await self._read()
                self._read_at = time.monotonic()
        return self._ready and not self.stopping.is_set()

    async def _read(self) -> bool:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                response = await self._client.request("GET", "/readyz", [("connection", "close")])
        except OSError:
            return False
        return response.status == HTTPStatus.OK
