"""Loads for measurements of overload: a closed loop, and open loops with a time limit for each request."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import multiprocessing
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

from vinegrape_loadtests.chaos.answers import LOST, Answer, KnownImage, judge
from vinegrape_loadtests.chaos.http_client import HttpClient, build_request

_NICE = -5  # the load must come on time; the server cannot answer what was not sent
_LEAD_S = 0.1


@dataclass(frozen=True)
class OpenLoad:
    """An open loop: requests are sent when they are due, independently of responses.

    Attributes:
        address: host and port of REST.
        images: sent in turn.
        rate: requests per second, at random (Poisson) intervals.
        seconds: duration.
        timeout_s: seconds after which a client leaves.
    """

    address: tuple[str, int]
    images: tuple[KnownImage, ...]
    rate: float
    seconds: float
    timeout_s: float


@dataclass(frozen=True)
class LoadResult:
    """What came of a load.

    Attributes:
        answers: one for each request.
        start: when the first request was due, in seconds of the monotonic clock.
        end: when the last request was due.
        late_s: 99th percentile of how late requests were sent.
        cpu_s: CPU seconds of the generator.
    """

    answers: list[Answer]
    start: float
    end: float
    late_s: float
    cpu_s: float

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.end - self.start


async def closed_loop(
    address: tuple[str, int], images: Sequence[KnownImage], connections: int, seconds: float
) -> list[Answer]:
    """Send images for some seconds; each connection sends its next request when it has its response.

    Returns:
        The answers that were complete in time.
    """
    requests = [(known, build_request(known.image)) for known in images]
    client, end, answers = HttpClient(*address), time.monotonic() + seconds, list[Answer]()

    async def send_until_end(first: int) -> None:
        for number in itertools.count(first):
            known, request = requests[number % len(requests)]
            start = time.monotonic()
            if start >= end:
                return
            answer = await _send(client, known, request, start, 60)
            if answer.end <= end:
                answers.append(answer)

    await asyncio.gather(*(send_until_end(number) for number in range(connections)))
    client.close()
    return answers


def run_load(load: OpenLoad) -> LoadResult:
    """Run an open loop in a process of its own, and return when all its requests have ended."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_main, args=(load, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        answers, *figures = ours.recv()
        return LoadResult([Answer(*values) for values in answers], *figures)
    finally:
        process.kill()
        process.join()


def _main(load: OpenLoad, connection: Connection) -> None:
    with contextlib.suppress(PermissionError):  # only root may; then some requests are sent late, see `late_s`
        os.nice(_NICE)
    connection.send(asyncio.run(_open_loop(load)))


async def _open_loop(load: OpenLoad) -> tuple[list[Answer], float, float, float, float]:
    requests = [(known, build_request(known.image)) for known in load.images]
    client, answers, late = HttpClient(*load.address), list[Answer](), list[float]()
    random_ = random.Random(0)  # noqa: S311
    cpu = time.process_time()
    start = due = time.monotonic() + _LEAD_S

    async def send_one(number: int, at: float) -> None:
        late.append(time.monotonic() - at)
        answers.append(await _send(client, *requests[number % len(requests)], at, load.timeout_s))

    async with asyncio.TaskGroup() as group:
        for number in itertools.count():
            due += random_.expovariate(load.rate)
            if due > start + load.seconds:
                break
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            group.create_task(send_one(number, due))
            if number % 32 == 0:
                await asyncio.sleep(0)  # responses are read also while requests are due without a pause
    client.close()
    late.sort()
    return answers, start, start + load.seconds, late[int(0.99 * len(late))] if late else 0, time.process_time() - cpu


async def _send(client: HttpClient, known: KnownImage, request: bytes, due: float, timeout_s: float) -> Answer:
    try:
        response = await client.send(request, timeout_s)
        outcome, detail = judge(known, response.status, response.body)
    except TimeoutError:
        outcome, detail = LOST, "timeout"
    except OSError as error:
        outcome, detail = LOST, type(error).__name__
    return Answer("rest", due, time.monotonic() - due, outcome, detail)
