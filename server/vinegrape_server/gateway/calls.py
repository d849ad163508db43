"""Bounds on the calls of all clients together: how many run, and how much memory their messages take."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from grpc import aio

from vinegrape_handler.errors import BadRequest, Overloaded, UploadTimeout

_WATCH_S = 0.1
_CANCEL_S = 0.1


class Memory:
    """Watches the memory of messages that are arriving. gRPC tells neither their size nor how much has arrived.

    Args:
        max_bytes: by how much the memory of this process may grow.
    """

    def __init__(self, max_bytes: int) -> None:
        self.arriving: dict[asyncio.Timeout, None] = {}  # time limits of the messages, oldest first
        self.is_full = False
        self._max_bytes = _resident_bytes() + max_bytes

    async def watch(self) -> None:
        """Refuse messages while they take too much memory: new ones, and the older half of those that are arriving."""
        loop = asyncio.get_running_loop()
        while True:
            self.is_full = bool(self.arriving) and _resident_bytes() > self._max_bytes
            if self.is_full:
                for limit in list(self.arriving)[: (len(self.arriving) + 1) // 2]:
                    limit.reschedule(loop.time())
            await asyncio.sleep(_WATCH_S)


class Calls:
    """Bounds the calls of some methods.

    gRPC reads a message only when a handler asks for it. So every method of this program is handled as a stream of
    messages: a call that is refused here has cost no memory, and a message that does not arrive has a time limit.

    Args:
        limit: maximum calls at the same time.
        upload_timeout_s: seconds within which a message must arrive completely.
        memory: watches the memory of messages.
    """

    def __init__(self, limit: int, upload_timeout_s: float, memory: Memory) -> None:
        self._limit = limit
        self._upload_timeout_s = upload_timeout_s
        self._memory = memory
        self._running = 0
        self._all_ended = asyncio.Event()
        self._all_ended.set()

    def admit(self, context: Any) -> None:
        """Count a call as running, until its last byte is sent.

        Raises:
            Overloaded: too many calls are running.
        """
        if self._running >= self._limit or self._memory.is_full:
            raise Overloaded("Too many gRPC calls are running. Retry after a second.")
        self._running += 1
        self._all_ended.clear()
        context.add_done_callback(self._end)

    async def read(self, context: Any) -> bytes:
        """Return the one message of a call.

        Raises:
            UploadTimeout: it has not arrived completely in time.
            Overloaded: the arriving messages take too much memory.
            BadRequest: the client has sent none.
        """
        try:
            async with asyncio.timeout(self._upload_timeout_s) as limit:
                self._memory.arriving[limit] = None
                try:
                    message = await context.read()
                finally:
                    del self._memory.arriving[limit]
        except TimeoutError as error:
            if self._memory.is_full:
                raise Overloaded("Too many large messages are arriving. Retry after a second.") from error
            raise UploadTimeout(f"The message has not arrived within {self._upload_timeout_s} s.") from error
        if message is aio.EOF:
            await asyncio.sleep(_CANCEL_S)  # is cancelled if the client has left, or if gRPC has refused the message
            raise BadRequest("The call has no message.")
        return bytes(message)

    async def wait_until_none(self) -> None:
        """Wait until no call is running."""
        await self._all_ended.wait()

    def _end(self, _context: Any) -> None:
        self._running -= 1
        if not self._running:
            self._all_ended.set()


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
