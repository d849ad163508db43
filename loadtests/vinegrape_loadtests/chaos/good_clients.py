"""Clients that do nothing wrong: they send known images at a fixed rate while a fault is tried, and check each answer.

They run in a process of their own, so that the load of a fault does not delay them, and send each request when it is
due, independently of responses (an open loop).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import multiprocessing
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from multiprocessing.connection import Connection

from vinegrape_loadtests.chaos.answers import LOST, REFUSED, RIGHT, Answer, KnownImage, judge, reason
from vinegrape_loadtests.chaos.http2_client import Http2Client
from vinegrape_loadtests.chaos.http_client import HttpAnswer, HttpClient, build_request
from vinegrape_loadtests.chaos.protobuf import METHOD, prediction, predictions_request

_REPORT_S = 0.1
_PROBE_S = 0.2
_GRPC_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.lb_policy_name", "round_robin"),
    # The default is a second and more, and would hide how soon the server is back
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)


@dataclass(frozen=True)
class Endpoint:
    """The ports of one server on the loopback address."""

    host: str
    rest_port: int
    grpc_port: int
    operations_port: int


@dataclass(frozen=True)
class Load:
    """What the good clients send.

    Attributes:
        endpoints: the servers. With several, REST clients send to those in turn whose `/readyz` is 200, as the service
            of a cluster does, and gRPC clients balance between all (round_robin).
        images: sent in turn.
        rates: requests per second by transport: "rest", "http2" or "grpc".
        timeout_s: seconds that a client waits.
    """

    endpoints: tuple[Endpoint, ...]
    images: tuple[KnownImage, ...]
    rates: dict[str, float]
    timeout_s: float


class GoodClients:
    """A process of good clients. As a context manager it ends with the block, after its last response.

    Args:
        load: what to send.

    Attributes:
        answers: what became of each request so far.
    """

    def __init__(self, load: Load) -> None:
        self._load = load
        self.answers: list[Answer] = []

    def __enter__(self) -> GoodClients:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_main, args=(self._load, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._process.kill()
        self._process.join()

    def stop(self) -> None:
        """Send no further requests, and wait for the responses to those that were sent."""
        with contextlib.suppress(OSError):
            self._ours.send(None)
        self._reader.join(self._load.timeout_s + 5)

    def since(self, start: float) -> list[Answer]:
        """Return the answers to requests that were due at or after a time of the monotonic clock."""
        return [answer for answer in self.answers if answer.due >= start]

    def wait_for_right_answers(self, since: float, timeout_s: float, count: int = 3) -> bool:
        """Wait for right answers without an error in between, over every transport.

        Args:
            since: only requests that were due after this time of the monotonic clock count.
            timeout_s: seconds to wait.
            count: how many right answers in a row.

        Returns:
            Whether there were as many in time.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            answers = self.since(since)
            last = {
                transport: [answer.outcome for answer in answers if answer.transport == transport][-count:]
                for transport in self._load.rates
            }
            if all(outcomes == [RIGHT] * count for outcomes in last.values()):
                return True
            if not self._process.is_alive():
                return False
            time.sleep(0.02)
        return False

    def _read(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                self.answers.extend(Answer(*values) for values in self._ours.recv())


def _main(load: Load, connection: Connection) -> None:
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError, ConnectionResetError):
        asyncio.run(_run(load, connection))


async def _run(load: Load, connection: Connection) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_reader(connection.fileno(), stop.set)  # a message, or the end of our parent
    answers: list[Answer] = []
    ready = [True] * len(load.endpoints)
    async with contextlib.AsyncExitStack() as stack:
        if len(load.endpoints) > 1:
            probes = [asyncio.create_task(_probe(endpoint, ready, i)) for i, endpoint in enumerate(load.endpoints)]
            stack.callback(lambda: [probe.cancel() for probe in probes])
        report = asyncio.create_task(_report(connection, answers))
        senders = []
        for transport, rate in load.rates.items():
            send = await stack.enter_async_context(_SENDERS[transport](load, ready))
            senders.append(_send_all(transport, send, load, rate, stop, answers))
        await asyncio.gather(*senders)
        report.cancel()
    connection.send(answers)
    connection.close()


async def _report(connection: Connection, answers: list[Answer]) -> None:
    while True:
        await asyncio.sleep(_REPORT_S)
        connection.send(answers)
        answers.clear()


Send = Callable[[KnownImage], Coroutine[None, None, tuple[str, str]]]


async def _send_all(
    transport: str, send: Send, load: Load, rate: float, stop: asyncio.Event, answers: list[Answer]
) -> None:
    """Send images at a fixed rate until the stop, then wait for the last responses."""
    start = time.monotonic()

    async def send_one(known: KnownImage, due: float) -> None:
        try:
            outcome, detail = await send(known)
        except TimeoutError:
            outcome, detail = LOST, "timeout"
        except OSError as error:
            outcome, detail = LOST, type(error).__name__
        answers.append(Answer(transport, due, time.monotonic() - due, outcome, detail))

    async with asyncio.TaskGroup() as group:
        for number, known in enumerate(itertools.cycle(load.images)):
            due = start + number / rate
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), max(0, due - time.monotonic()))
            if stop.is_set():
                return
            group.create_task(send_one(known, due))


async def _probe(endpoint: Endpoint, ready: list[bool], index: int) -> None:
    """Keep `ready[index]` up to date with the endpoint's `/readyz`."""
    probe = build_request(method="GET", path="/readyz", headers=("Connection: close",))
    while True:
        client = HttpClient(endpoint.host, endpoint.operations_port)
        try:
            ready[index] = (await client.send(probe, 1)).status == 200
        except OSError:
            ready[index] = False
        await asyncio.sleep(_PROBE_S)


class _RoundRobin:
    """Clients of several endpoints, used in turn; those that are not ready are left out."""

    def __init__(self, load: Load, ready: list[bool], make: type[HttpClient] | type[Http2Client]) -> None:
        self._clients = [make(endpoint.host, endpoint.rest_port) for endpoint in load.endpoints]
        self._ready, self._turn = ready, 0

    async def send(self, request: bytes, timeout_s: float) -> HttpAnswer:
        """Send to the next client. If nothing listens there, nothing was sent: send to the one after it."""
        for _ in self._clients:
            client = self._next()
            try:
                return await client.send(request, timeout_s)
            except ConnectionRefusedError:
                continue
        raise ConnectionRefusedError("no server accepts connections")

    def close(self) -> None:
        for client in self._clients:
            client.close()

    def _next(self) -> HttpClient | Http2Client:
        for _ in self._clients:
            self._turn = (self._turn + 1) % len(self._clients)
            if self._ready[self._turn]:
                break
        return self._clients[self._turn]


@contextlib.asynccontextmanager
async def _rest(load: Load, ready: list[bool]) -> AsyncIterator[Send]:
    requests = {known.image: build_request(known.image) for known in load.images}
    client = _RoundRobin(load, ready, HttpClient)

    async def send(known: KnownImage) -> tuple[str, str]:
        answer = await client.send(requests[known.image], load.timeout_s)
        return judge(known, answer.status, answer.body)

    yield send
    client.close()


@contextlib.asynccontextmanager
async def _http2(load: Load, ready: list[bool]) -> AsyncIterator[Send]:
    client = _RoundRobin(load, ready, Http2Client)

    async def send(known: KnownImage) -> tuple[str, str]:
        answer = await client.send(known.image, load.timeout_s)
        return judge(known, answer.status, answer.body)

    yield send
    client.close()


@contextlib.asynccontextmanager
async def _grpc(load: Load, ready: list[bool]) -> AsyncIterator[Send]:
    import grpc

    addresses = ",".join(f"{endpoint.host}:{endpoint.grpc_port}" for endpoint in load.endpoints)
    requests = {known.image: predictions_request(known.image) for known in load.images}
    async with grpc.aio.insecure_channel(f"ipv4:{addresses}", options=_GRPC_OPTIONS) as channel:
        call = channel.unary_unary(METHOD)  # bytes in, bytes out

        async def send(known: KnownImage) -> tuple[str, str]:
            try:
                response = await call(requests[known.image], timeout=load.timeout_s)
                return judge(known, 200, prediction(response))
            except grpc.aio.AioRpcError as error:
                status = error.code().name
                if status == "RESOURCE_EXHAUSTED":
                    return REFUSED, status
                return LOST, f"{status} ({reason(error.details() or '')})"

        yield send


_SENDERS = {"rest": _rest, "http2": _http2, "grpc": _grpc}
