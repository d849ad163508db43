"""Bounds on the calls of all clients together: how many run, and how much memory their messages take."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from pathlib import Path
from typing import Any

from grpc import aio

from vinegrape_handler.errors import BadRequest, Overloaded, UploadTimeout

_WATCH_S = 0.1
_CANCEL_S = 0.1
_DISCARD_S = 2.0
_LARGE_BYTES = 1_000_000
_ALWAYS_ADMITTED = 4
_ADMITTED_AT_ONCE = 32


class Memory:
    """Bounds the memory of messages. gRPC tells neither the size of a message nor how much of it has arrived.

    A few messages may always arrive. More of them may arrive while all together take less than half of the memory, and
    the others wait: gRPC's flow control then stops their clients. A large message counts until its call has ended.

    Args:
        max_bytes: by how much the memory of this process may grow.
    """

    def __init__(self, max_bytes: int) -> None:
        self.is_full = False
        self._max_bytes = max_bytes
        self._bytes_at_start = _resident_bytes()
        self._admitted = 0  # messages that arrive, and large ones whose calls run
        self._may_enter = _ADMITTED_AT_ONCE  # how many more may be admitted until the memory is measured again
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._arriving: dict[asyncio.Timeout, None] = {}  # time limits of the messages that arrive, oldest first

    async def watch(self) -> None:
        """Measure the memory regularly. If it is full, refuse the older half of the messages that are arriving."""
        loop = asyncio.get_running_loop()
        while True:
            grown = _resident_bytes() - self._bytes_at_start if self._admitted else 0
            self.is_full = bool(self._arriving) and grown > self._max_bytes
            if self.is_full:
                for limit in list(self._arriving)[: (len(self._arriving) + 1) // 2]:
                    limit.reschedule(loop.time())
            self._may_enter = _ADMITTED_AT_ONCE if grown < self._max_bytes / 2 else 0
            self._admit_waiting()
            await asyncio.sleep(_WATCH_S)

    async def enter(self) -> None:
        """Wait until a message may arrive. `leave` must follow."""
        if self._waiting or not self._take_place():
            place = asyncio.get_running_loop().create_future()
            self._waiting.append(place)
            try:
                await place
            except asyncio.CancelledError:
                if place.done() and not place.cancelled():
                    self.leave()
                raise

    def leave(self) -> None:
        """Free the place of a message: it is small and has arrived, it will not arrive, or its call has ended."""
        self._admitted -= 1
        self._admit_waiting()

    async def receive(self, context: Any, timeout_s: float) -> Any:
        """Return the next message of a call, or `grpc.aio.EOF`.

        Raises:
            TimeoutError: it has not arrived in time, or it was refused because the memory is full.
        """
        async with asyncio.timeout(timeout_s) as limit:
            self._arriving[limit] = None
            try:
                return await context.read()
            finally:
                del self._arriving[limit]

    def _take_place(self) -> bool:
        if self._admitted >= _ALWAYS_ADMITTED:
            if not self._may_enter:
                return False
            self._may_enter -= 1
        self._admitted += 1
        return True

    def _admit_waiting(self) -> None:
        while self._waiting:
            if self._waiting[0].done():  # its call has ended
                self._waiting.popleft()
            elif self._take_place():
                self._waiting.popleft().set_result(None)
            else:
                return


class Calls:
    """Bounds the calls of some methods.

    gRPC reads a message only when a handler asks for it. So every method of this program is handled as a stream of
    messages: a call that waits or is refused here costs no memory, and a message that does not arrive has a time limit.

    Args:
        limit: maximum calls at the same time.
        upload_timeout_s: seconds within which a message must arrive completely.
        memory: bounds the memory of messages.
    """

    def __init__(self, limit: int, upload_timeout_s: float, memory: Memory) -> None:
        self._limit = limit
        self._upload_timeout_s = upload_timeout_s
        self._memory = memory
        self._running = 0
        self._all_ended = asyncio.Event()
        self._all_ended.set()

    async def admit(self, context: Any) -> None:
        """Count a call as running, until its last byte is sent.

        Raises:
            Overloaded: too many calls are running.
        """
        if self._running >= self._limit:
            await self._discard(context)
            raise Overloaded("Too many gRPC calls are running. Retry after a second.")
        self._running += 1
        self._all_ended.clear()
        context.add_done_callback(self._end)

    async def read(self, context: Any) -> bytes:
        """Return the one message of a call.

        Raises:
            UploadTimeout: it has not arrived completely in time.
            Overloaded: the messages of all clients take too much memory.
            BadRequest: the client has sent none.
        """
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._upload_timeout_s
        try:
            async with asyncio.timeout_at(ends_at):
                await self._memory.enter()
        except TimeoutError as error:
            raise Overloaded("Too many large messages are arriving. Retry after a second.") from error
        message: Any = b""
        try:
            message = await self._memory.receive(context, ends_at - loop.time())
        except TimeoutError as error:
            if self._memory.is_full:
                raise Overloaded("Too many large messages are arriving. Retry after a second.") from error
            raise UploadTimeout(f"The message has not arrived within {self._upload_timeout_s} s.") from error
        finally:
            if message is not aio.EOF and len(message) > _LARGE_BYTES:
                context.add_done_callback(lambda _: self._memory.leave())
            else:
                self._memory.leave()
        if message is aio.EOF:
            await asyncio.sleep(_CANCEL_S)  # is cancelled if the client has left, or if gRPC has refused the message
            raise BadRequest("The call has no message.")
        return bytes(message)

    async def wait_until_none(self) -> None:
        """Wait until no call is running."""
        await self._all_ended.wait()

    async def _discard(self, context: Any) -> None:
        """Receive the message of a call that is refused.

        The edge resets a call that is answered before its last message, and the client would see CANCELLED.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DISCARD_S):
                await self._memory.enter()
                try:
                    await self._memory.receive(context, _DISCARD_S)
                finally:
                    self._memory.leave()

    def _end(self, _context: Any) -> None:
        self._running -= 1
        if not self._running:
            self._all_ended.set()


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
