"""A server that stops first responds to the requests in flight, unless it receives a second signal."""

import http.client
import json
import os
import pty
import signal
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.conftest import program
from tests.support.processes import STOP_S, java, workers
from tests.support.repack import with_entry
from tests.support.server import serving, starting, wait_until

pytestmark = pytest.mark.live

# A large body takes time on its way to the worker. The worker then sleeps: 0.4 s for LARGE_BYTES, 3 s for twice that
# size. Sleeping uses no CPU time, so only the metrics show that the worker is busy.
LARGE_BYTES = 2_000_000
SLOW_ON_LARGE_IMAGES = f"""
import time
from vinegrape_handler.classifier import Classifier
from vinegrape_handler.handler import Handler

classify = Classifier.classify

def classify_slowly(self, images):
    largest = max((len(image) for image in images if isinstance(image, bytes)), default=0)
    if largest >= {LARGE_BYTES}:
        time.sleep(3 if largest >= {2 * LARGE_BYTES} else 0.4)
    return classify(self, images)

class Slow(Handler):
    def initialize(self, context):
        Classifier.classify = classify_slowly
        super().initialize(context)
"""


@pytest.fixture
def slow_archive(tiny_archive, tmp_path) -> Path:
    return with_entry(tiny_archive, tmp_path, SLOW_ON_LARGE_IMAGES)


@pytest.fixture(scope="module")
def large_image(image) -> bytes:
    """The same pixels in a larger file. PNG decoders ignore bytes after the end of the image."""
    return image + bytes(LARGE_BYTES)


def wait_until_stopping(live):
    wait_until(lambda: live.operations("/readyz").status_code == 503)


def stop_at_once(live) -> int:
    """Send signals until the server ends; return its exit code. A second one within a second has no effect."""
    wait_until(lambda: live.process.poll() is not None or live.process.send_signal(signal.SIGTERM))
    return live.process.returncode


@pytest.mark.parametrize("batch_size", [1, pytest.param(8, marks=pytest.mark.nightly)])
def test_requests_in_flight_are_answered(slow_archive, large_image, tmp_path, batch_size):
    """At the signal, some requests are in the queue, some on their way to the worker, and one is being classified."""
    settings = {"batch_size": batch_size, "drain_timeout_s": 200}
    with serving(slow_archive, tmp_path / "log", **settings) as live, ThreadPoolExecutor(7) as pool:
        before = live.received()
        over_rest = [pool.submit(live.post, large_image) for _ in range(3)]
        over_grpc = [pool.submit(live.call, large_image) for _ in range(3)]
        wait_until(lambda: live.received() == before + 6)
        over_rest.append(pool.submit(live.post, large_image + bytes(LARGE_BYTES)))
        wait_until(lambda: live.received() == before + 7)
        live.process.send_signal(signal.SIGTERM)
        wait_until_stopping(live)
        answers = [response.result().json() for response in over_rest]
        answers += [json.loads(response.result()) for response in over_grpc]
        assert [answer["label"] for answer in answers] == ["Ak"] * 7
        assert live.process.wait(STOP_S) == 0


@pytest.mark.tools
def test_behind_the_edge_no_request_on_a_kept_connection_is_lost(tiny_archive, image, tmp_path):
    """Clients send requests without a pause over REST, with and without a deadline of their own, and over gRPC."""
    program("haproxy", "haproxy")
    rest, with_deadline = partial(send_over_rest, {}), partial(send_over_rest, {"x-request-timeout-ms": "9000"})
    senders = [rest, rest, rest, with_deadline, send_over_grpc]
    with serving(tiny_archive, tmp_path / "log", edge=True) as live, ThreadPoolExecutor(len(senders)) as pool:
        before = live.received()
        clients = [pool.submit(send, live, image) for send in senders]
        wait_until(lambda: live.received() > before + 50)
        live.process.send_signal(signal.SIGTERM)
        assert live.process.wait(STOP_S) == 0
        results = [client.result() for client in clients]
    assert [set(of_client) for of_client in results] == [{200}] * len(senders)


def send_over_rest(headers, live, image) -> list[object]:
    """Send requests over kept connections until the port is closed. Return the status of each, or its error."""
    results: list[object] = []
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", live.rest_port, timeout=30)
        try:
            connection.connect()
        except ConnectionRefusedError:
            return results
        kept = True
        while kept:
            try:
                connection.request("POST", "/predictions/vinegrape", image, headers)
                response = connection.getresponse()
                response.read()
                results.append(response.status)
                kept = response.getheader("connection") != "close"
            except (OSError, http.client.HTTPException) as error:
                results.append(repr(error))
                kept = False
        connection.close()


def send_over_grpc(live, image) -> list[object]:
    """Call over one channel until the port is closed. Return 200 for each answer, or its error."""
    import grpc

    results: list[object] = []
    with live.channel() as predict:
        while True:
            try:
                predict(image)
                results.append(200)
            except grpc.RpcError as error:
                if "Connection refused" in error.details():
                    return results
                results.append(error.details())


def test_requests_in_flight_are_answered_after_the_terminal_is_closed(slow_archive, large_image, tmp_path):
    """The server can no longer write its last lines."""
    terminal, server_end = pty.openpty()
    with starting(slow_archive, tmp_path / "log", output=server_end) as live, ThreadPoolExecutor(4) as pool:
        os.close(server_end)
        live.wait_until_ready()
        before = live.received()
        responses = [pool.submit(live.post, large_image) for _ in range(4)]
        wait_until(lambda: live.received() == before + 4)
        os.close(terminal)
        live.process.send_signal(signal.SIGHUP)
        assert [response.result().status_code for response in responses] == [200] * 4
        assert live.process.wait(STOP_S) == 0


def test_a_second_signal_does_not_wait_for_requests(tiny_archive, image, tmp_path):
    with serving(tiny_archive, tmp_path / "log", drain_timeout_s=1000) as live, ThreadPoolExecutor(4) as pool:
        (worker,) = workers(live.process)
        worker.suspend()  # it never responds
        before = live.received()
        responses = [pool.submit(live.post, image) for _ in range(4)]
        wait_until(lambda: live.received() == before + 4)
        live.process.send_signal(signal.SIGTERM)
        wait_until_stopping(live)
        assert stop_at_once(live) == 0
        assert all(isinstance(response.exception(), httpx.TransportError) for response in responses)


def test_a_second_signal_does_not_wait_for_a_torchserve_that_hangs(tiny_archive, tmp_path):
    """Such a Java process does not report the requests in flight."""
    with serving(tiny_archive, tmp_path / "log", drain_timeout_s=1000) as live:
        java(live.process).suspend()
        live.process.send_signal(signal.SIGTERM)
        wait_until_stopping(live)
        assert stop_at_once(live) == 0
