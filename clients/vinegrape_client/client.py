"""The client for ordinary code. `async_client.py` has the same for asyncio."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Protocol, Self, TypeVar

from vinegrape_client.errors import VinegrapeError
from vinegrape_client.images import Image, read_image
from vinegrape_client.options import Options
from vinegrape_client.ordered import map_in_order
from vinegrape_client.rest import Rest
from vinegrape_client.results import Description, Explanation, Prediction, Result
from vinegrape_client.retries import Attempts, Retries

# More than any server accepts by default (20 MB)
MAX_IMAGE_BYTES = 50_000_000

READY_TIMEOUT_S = 5.0

Returned = TypeVar("Returned")


class Client:
    """Classifies images on a vinegrape server, over REST or gRPC. Threads may share a client.

    Args:
        url: `http://HOST:PORT` or `https://...` for REST, `grpc://HOST:PORT` or `grpcs://...` for gRPC; those with an s
            use TLS.
        api_key: the API key, if the server requires one.
        ca_file: PEM file of the authority that has signed the server's certificate; by default, the usual authorities.
        timeout_s: seconds for each call with all its retries. The server is told how much time is left.
        retries: when a failed request is sent again.
        model: the model's name.
        max_image_bytes: larger files are not read, and raise TooLarge.
        sleep: waits before a retry.

    Raises:
        ValueError: the URL or another value is invalid.
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
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        check_timeout(timeout_s)
        self._timeout_s = timeout_s
        self._retries = retries
        self._max_image_bytes = max_image_bytes
        self._sleep = sleep
        self._transport = _connect(Options(url, api_key, ca_file, model))

    def predict(self, image: Image, *, timeout_s: float | None = None) -> Prediction:
        """Classify one image.

        Args:
            image: the bytes of an image file, the path of a file, or an open file.
            timeout_s: seconds for this call; the client's if None.

        Raises:
            VinegrapeError: the image was not classified; see `vinegrape_client.errors`.
            OSError: the file cannot be read.
        """
        data = read_image(image, self._max_image_bytes)
        return Prediction.from_json(self._call(lambda left_s: self._transport.predict(data, left_s), timeout_s))

    def explain(self, image: Image, *, class_: str | None = None, timeout_s: float | None = None) -> Explanation:
        """Classify one image, and explain the prediction.

        Args:
            image: as in `predict`.
            class_: the class to explain; the most probable one if None.
            timeout_s: seconds for this call; the client's if None.

        Raises:
            VinegrapeError: there is no explanation; see `vinegrape_client.errors`. NotFound: the model gives none.
            OSError: the file cannot be read.
        """
        data = read_image(image, self._max_image_bytes)
        body = self._call(lambda left_s: self._transport.explain(data, class_, left_s), timeout_s)
        return Explanation.from_json(body)

    def predict_many(
        self, images: Iterable[Image], *, concurrency: int = 8, timeout_s: float | None = None
    ) -> Generator[Result, None, None]:
        """Classify many images, several at the same time, and yield one result per image, in order.

        An image that cannot be classified gets a result with the error. Images are read as they are needed: at most
        `concurrency` files are in memory.

        Args:
            images: the images, as in `predict`. They may be more than fit into memory.
            concurrency: maximum requests at the same time.
            timeout_s: seconds for each image; the client's if None.

        Raises:
            ValueError: concurrency is not at least 1.
        """
        check_concurrency(concurrency)
        return self._predict_many(images, concurrency, timeout_s)

    def describe(self, *, timeout_s: float | None = None) -> Description:
        """Return the description of the model. Only REST has it.

        Raises:
            VinegrapeError: there is no description; see `vinegrape_client.errors`.
        """
        return Description.from_json(self._call(self._transport.describe, timeout_s))

    def ready(self) -> bool:
        """Return whether the server is ready. There is no retry."""
        try:
            return self._transport.ready(min(self._timeout_s, READY_TIMEOUT_S))
        except VinegrapeError:
            return False

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _predict_many(
        self, images: Iterable[Image], concurrency: int, timeout_s: float | None
    ) -> Generator[Result, None, None]:
        def classify(image: Image) -> Result:
            try:
                return Result(image, self.predict(image, timeout_s=timeout_s))
            except (VinegrapeError, OSError) as error:
                return Result(image, error=error)

        with ThreadPoolExecutor(concurrency, thread_name_prefix="vinegrape") as pool:
            yield from map_in_order(pool, classify, images, results_ahead(concurrency))

    def _call(self, send: Callable[[float], Returned], timeout_s: float | None) -> Returned:
        """Send a request, and send it again where that may help; `send` gets the seconds that are left."""
        check_timeout(timeout_s)
        attempts = Attempts(self._retries, self._timeout_s if timeout_s is None else timeout_s)
        while True:
            try:
                return send(attempts.remaining_s())
            except VinegrapeError as error:
                delay_s = attempts.delay_s(error)
            self._sleep(delay_s)


class _Transport(Protocol):
    """What REST and gRPC have in common. The methods raise a VinegrapeError."""

    def predict(self, image: bytes, timeout_s: float) -> object: ...
    def explain(self, image: bytes, class_: str | None, timeout_s: float) -> object: ...
    def describe(self, timeout_s: float) -> object: ...
    def ready(self, timeout_s: float) -> bool: ...
    def close(self) -> None: ...


def _connect(options: Options) -> _Transport:
    if options.is_grpc:
        from vinegrape_client.grpc_calls import Grpc  # importing gRPC takes a fifth of a second

        return Grpc(options)
    return Rest(options)


def check_timeout(timeout_s: float | None) -> None:
    """Check a time limit.

    Raises:
        ValueError: it is not more than 0.
    """
    if timeout_s is not None and not timeout_s > 0:
        raise ValueError(f"timeout_s is {timeout_s}; it must be more than 0.")


def check_concurrency(concurrency: int) -> None:
    """Check a number of requests.

    Raises:
        ValueError: it is not at least 1.
    """
    if concurrency < 1:
        raise ValueError(f"concurrency is {concurrency}; it must be at least 1.")


def results_ahead(concurrency: int) -> int:
    """Return how many results may wait for a slow image before them, so that the other requests need not wait."""
    return 4 * concurrency
