"""Send changed images to a live server, and check the answers to them and to valid images beside them."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from vinegrape_handler.images.decode import Limits
from vinegrape_handler.request import starts_json_object
from vinegrape_loadtests.client import HttpResponse, instances_body
from vinegrape_loadtests.fuzz.checks import OK, Violation, outcome
from vinegrape_loadtests.fuzz.failures import Failures
from vinegrape_loadtests.fuzz.mutations import apply, random_changes
from vinegrape_loadtests.fuzz.seeds import seeds
from vinegrape_loadtests.images import draw_leaf, encode
from vinegrape_loadtests.local.server import Server
from vinegrape_loadtests.memory import LoadRequest, grpc_caller, rest_caller
from vinegrape_loadtests.response_checks import RequestRefused, ResponseChecker, WrongResponse
from vinegrape_loadtests.sample_requests import ExpectedError, SampleRequest

_MAX_RESPONSE_S = 10  # for a small image on a machine that does other things too
_INSTANCES_EVERY = 4  # requests: how often a changed image is sent in JSON between two valid ones
_TOLERANCE = 1e-5  # the network's rounding depends on the size of the batch
_LEAF_SIDE = 256
_JSON = "application/json"

Send = Callable[[LoadRequest], HttpResponse]


@dataclass
class ServerRun:
    """The results of one run.

    Attributes:
        counts: how often each transport returned each status for a changed image.
        neighbours: how many valid images got their right answer.
        problems: how often each kind of problem was seen.
    """

    counts: Counter[str] = field(default_factory=Counter)
    neighbours: int = 0
    problems: Counter[str] = field(default_factory=Counter)


def fuzz_server(
    server: Server, requests: int, seed: int, clients: int, limits: Limits, failures: Failures,
    progress: Callable[[], None],
) -> ServerRun:  # fmt: skip
    """Send changed images, each followed by a valid one.

    Args:
        server: a running server whose workers have these limits.
        requests: how many changed images are sent, by all clients together.
        seed: equal seeds give equal images.
        clients: how many send at the same time; every second one uses gRPC.
        limits: with which each image is also decoded here: the server must return the same status.
        failures: gets each image with which something was wrong.
        progress: called after each changed image.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _be_quiet) as decoder:
        return _run_clients(server, requests, seed, clients, _Session(limits, decoder, failures, progress))


def _be_quiet() -> None:
    """Drop what the decoders of this process write about damaged images."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _run_clients(server: Server, requests: int, seed: int, clients: int, session: _Session) -> ServerRun:
    share = -(-requests // clients)

    def run_client(number: int) -> None:
        grpc = number % 2
        send = grpc_caller(server.grpc_address) if grpc else rest_caller(server.predictions_url)
        session.send_all(send, "grpc" if grpc else "rest", random.Random(f"{seed} {number}"), share)  # noqa: S311

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(run_client, range(clients)))
    return session.run


class _Session:
    """The checks that all clients of a run share."""

    def __init__(self, limits: Limits, decoder: Executor, failures: Failures, progress: Callable[[], None]) -> None:
        self.run = ServerRun()
        self._limits, self._decoder, self._failures, self._progress = limits, decoder, failures, progress
        self._lock = threading.Lock()
        self._checker = ResponseChecker(_TOLERANCE)
        self._leaves = {kind: encode(draw_leaf(kind, _LEAF_SIDE), "PNG") for kind in ("Ak", "Nazli")}

    def send_all(self, send: Send, transport: str, rng: random.Random, requests: int) -> None:
        """Send changed images and valid ones in turn."""
        images = list(seeds().values())
        for number in range(requests):
            data = apply(rng.choice(images), random_changes(rng), rng.choice(images))
            try:
                expected = self._decoder.submit(outcome, data, self._limits).result()
                # As a body, what starts like JSON is read as JSON
                if number % _INSTANCES_EVERY == 0 or starts_json_object(data):
                    status = self._send_between_leaves(send, data, expected)
                else:
                    status = self._send_image(send, data, expected)
                self._count(f"{transport} {status}")
            except (Violation, WrongResponse, OSError) as error:
                self._report(data, f"{transport}: {type(error).__name__}: {error}")
            self._send_leaf(send, transport, "Ak" if number % 2 else "Nazli")
            self._progress()

    def _send_image(self, send: Send, data: bytes, expected: int) -> int:
        response = _timed(send, LoadRequest(data))
        if response.status != expected:
            raise Violation(f"status {response.status}, not {expected}: {response.body[:200]!r}")
        _check_body(json.loads(response.body), expected)
        return expected

    def _send_between_leaves(self, send: Send, data: bytes, expected: int) -> int:
        leaves = list(self._leaves.values())
        response = _timed(send, LoadRequest(instances_body([leaves[0], data, leaves[1]]), _JSON))
        if response.status != OK:
            raise Violation(f"status {response.status}, not 200, for JSON: {response.body[:200]!r}")
        predictions = json.loads(response.body)["predictions"]
        _check_body(predictions[1], expected)
        predictions[1] = {"error": {"code": 422, "type": "broken_image"}}  # it has been checked
        self._check("Ak", ExpectedError(422, "broken_image"), "Nazli", body=json.dumps({"predictions": predictions}))
        return expected

    def _send_leaf(self, send: Send, transport: str, kind: str) -> None:
        try:
            self._check(kind, body=_timed(send, LoadRequest(self._leaves[kind])).body.decode())
        except (Violation, WrongResponse, OSError) as error:
            self._report(self._leaves[kind], f"valid image over {transport}: {type(error).__name__}: {error}")

    def _check(self, *expected: str | ExpectedError, body: str) -> None:
        """Check the answers to valid images."""
        request = SampleRequest("leaf", b"", "", expected, instances=len(expected) > 1)
        with self._lock:
            try:
                self._checker.check(request, HttpResponse(OK, body.encode()))
            except RequestRefused as error:
                raise Violation(str(error)) from error
            self.run.neighbours += sum(isinstance(item, str) for item in expected)

    def _count(self, name: str) -> None:
        with self._lock:
            self.run.counts[name] += 1

    def _report(self, data: bytes, problem: str) -> None:
        with self._lock:
            self.run.problems[problem.partition(":")[0]] += 1
            self._failures.save(data, problem)


def _timed(send: Send, request: LoadRequest) -> HttpResponse:
    start = time.monotonic()
    response = send(request)
    seconds = time.monotonic() - start
    if seconds > _MAX_RESPONSE_S:
        raise Violation(f"{seconds:.1f} s for status {response.status}")
    return response


def _check_body(body: Any, expected: int) -> None:
    """Check that a body is a prediction or the expected error.

    Raises:
        Violation: it is neither.
    """
    status = body["error"]["code"] if isinstance(body, dict) and "error" in body else OK
    if status != expected or (expected == OK and "label" not in body):
        raise Violation(f"status {status}, not {expected}, in the body: {str(body)[:200]}")
