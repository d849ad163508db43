"""Run a function on many items at the same time, and yield the results in the order of the items."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

Item = TypeVar("Item")
Returned = TypeVar("Returned")


def map_in_order(
    executor: Executor, function: Callable[[Item], Returned], items: Iterable[Item], ahead: int
) -> Iterator[Returned]:
    """Yield `function(item)` for each item, in order.

    `Executor.map` takes all items at once; this function takes an item when there is room for it.

    Args:
        executor: runs the function, and bounds how many calls run at the same time.
        function: the function.
        items: the items; they are read as they are needed.
        ahead: maximum items that are read and whose results are not yet yielded.
    """
    futures: deque[Future[Returned]] = deque()
    try:
        for item in items:
            futures.append(executor.submit(function, item))
            if len(futures) >= ahead:
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()
    finally:
        for future in futures:
            future.cancel()
