"""The client for asyncio: the methods of `Client` as coroutines."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Protocol, Self, TypeVar

from vinegrape_client.client import (
    MAX_IMAGE_BYTES,
    READY_TIMEOUT_S,
    check_concurrency,
    check_timeout,
    results_ahead,
)
from vinegrape_client.errors import VinegrapeError
from vinegrape_client.images import Image, read_image
from vinegrape_client.options import Options
from vinegrape_client.rest import AsyncRest
from vinegrape_client.results import Description, Explanation, Prediction, Result
from vinegrape_client.retries import Attempts, Retries

Returned = TypeVar("Returned")


class AsyncClient:
    """Classifies images on a vinegrape server, over REST or gRPC, in an event loop of asyncio.

    The arguments and the methods are those of `Client`. Create it in a coroutine.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        timeout_s: float = 30.0,
        retries: Retries = Retries(),  # noqa: B008 - it cannot be changed
        model: str = "vinegrape",
        max_image_bytes: int = MAX_IMAGE_BYTES,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        check_timeout(timeout_s)
        self._timeout_s = timeout_s
        self._retries = retries
        self._max_image_bytes = max_image_bytes
        self._sleep = sleep
        self._transport = _connect(Options(url, api_key, ca_file, model))

    async def predict(self, image: Image, *, timeout_s: float | None = None) -> Prediction:
        """Classify one image; see `Client.predict`."""
        data = await self._read(image)
        return Prediction.from_json(await self._call(lambda left_s: self._transport.predict(data, left_s), timeout_s))

    async def explain(self, image: Image, *, class_: str | None = None, timeout_s: float | None = None) -> Explanation:
        """Classify one image, and explain the prediction; see `Client.explain`."""
        data = await self._read(image)
        body = await self._call(lambda left_s: self._transport.explain(data, class_, left_s), timeout_s)
        return Explanation.from_json(body)

    def predict_many(
        self, images: Iterable[Image], *, concurrency: int = 8, timeout_s: float | None = None
    ) -> AsyncGenerator[Result, None]:
        """Classify many images, several at the same time, and yield one result per image; see `Client.predict_many`."""
        check_concurrency(concurrency)
        return self._predict_many(images, concurrency, timeout_s)

    async def describe(self, *, timeout_s: float | None = None) -> Description:
        """Return the description of the model; see `Client.describe`."""
        return Description.from_json(await self._call(self._transport.describe, timeout_s))

    async def ready(self) -> bool:
        """Return whether the server is ready. There is no retry."""
        try:
            return await self._transport.ready(min(self._timeout_s, READY_TIMEOUT_S))
        except VinegrapeError:
            return False

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _predict_many(
        self, images: Iterable[Image], concurrency: int, timeout_s: float | None
    ) -> AsyncGenerator[Result, None]:
        running = asyncio.Semaphore(concurrency)

        async def classify(image: Image) -> Result:
            async with running:
                try:
                    return Result(image, await self.predict(image, timeout_s=timeout_s))
                except (VinegrapeError, OSError) as error:
                    return Result(image, error=error)

        tasks: deque[asyncio.Task[Result]] = deque()
        try:
            for image in images:
                tasks.append(asyncio.create_task(classify(image)))
                if len(tasks) >= results_ahead(concurrency):
                    yield await tasks.popleft()
            while tasks:
                yield await tasks.popleft()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, image: Image) -> bytes:
        """Read an image, a file in a thread."""
        return image if isinstance(image, bytes) else await asyncio.to_thread(read_image, image, self._max_image_bytes)

    async def _call(self, send: Callable[[float], Awaitable[Returned]], timeout_s: float | None) -> Returned:
        """Send a request, and send it again where that may help; `send` gets the seconds that are left."""
        check_timeout(timeout_s)
        attempts = Attempts(self._retries, self._timeout_s if timeout_s is None else timeout_s)
        while True:
            try:
                return await send(attempts.remaining_s())
            except VinegrapeError as error:
                delay_s = attempts.delay_s(error)
            await self._sleep(delay_s)


class _Transport(Protocol):
    """What REST and gRPC have in common. The methods raise a VinegrapeError."""

    async def predict(self, image: bytes, timeout_s: float) -> object: ...
    async def explain(self, image: bytes, class_: str | None, timeout_s: float) -> object: ...
    async def describe(self, timeout_s: float) -> object: ...
    async def ready(self, timeout_s: float) -> bool: ...
    async def close(self) -> None: ...


def _connect(options: Options) -> _Transport:
    if options.is_grpc:
        from vinegrape_client.grpc_calls import AsyncGrpc

        return AsyncGrpc(options)
    return AsyncRest(options)
