"""Use an AsyncClient as if it were a Client, so that the same tests cover both."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

from vinegrape_client import AsyncClient, Client, Description, Explanation, Prediction, Result


class Blocking:
    """An AsyncClient with an event loop of its own. `sleep` is an ordinary function, as for a Client."""

    def __init__(self, url: str, **options: Any) -> None:
        self._runner = asyncio.Runner()
        if sleep := options.get("sleep"):

            async def sleep_async(seconds: float) -> None:
                sleep(seconds)

            options["sleep"] = sleep_async
        try:
            self._client = self._runner.run(self._make(url, options))
        except BaseException:
            self._runner.close()
            raise

    async def _make(self, url: str, options: dict[str, Any]) -> AsyncClient:
        return AsyncClient(url, **options)

    def predict(self, image: Any, **options: Any) -> Prediction:
        return self._runner.run(self._client.predict(image, **options))

    def explain(self, image: Any, **options: Any) -> Explanation:
        return self._runner.run(self._client.explain(image, **options))

    def predict_many(self, images: Any, **options: Any) -> Iterator[Result]:
        results = self._client.predict_many(images, **options)
        try:
            while True:
                with contextlib.suppress(StopAsyncIteration):
                    yield self._runner.run(anext(results))
                    continue
                return
        finally:
            self._runner.run(results.aclose())

    def describe(self) -> Description:
        return self._runner.run(self._client.describe())

    def ready(self) -> bool:
        return self._runner.run(self._client.ready())

    def __enter__(self) -> "Blocking":
        self._runner.run(self._client.__aenter__())
        return self

    def __exit__(self, *error: Any) -> None:
        self._runner.run(self._client.__aexit__(*error))
        self._runner.close()


KINDS = {"sync": Client, "async": Blocking}
