"""The queue, its limit, deadlines, and limits of one client."""

import asyncio
import contextlib
import csv
import json
import socket
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tests.conftest import program
from tests.server.edge.test_requests import error
from tests.support.edge import PATH, Edge, read_to_end, running_edge
from tests.support.server import wait_until
from vinegrape_handler.contract import SELF_CHECK_HEADER
from vinegrape_loadtests.chaos import http2_frames as h2
from vinegrape_loadtests.chaos.http2_client import Http2Client
from vinegrape_loadtests.chaos.sockets import connected
from vinegrape_server.edge import admin
from vinegrape_server.host.http import get

pytestmark = pytest.mark.tools

WAIT = json.dumps({"wait": True}).encode()


def request(body: bytes = WAIT, *headers: str, path: str = PATH) -> bytes:
    """A POST request whose connection is closed after the response."""
    lines = [f"POST {path} HTTP/1.1", "Host: a", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def send(edge: Edge, number: int, *headers: str) -> list[socket.socket]:
    """Send requests that wait in the stand-in, each over its own connection."""
    connections = [edge.connect() for _ in range(number)]
    for connection in connections:
        connection.sendall(request(WAIT, *headers))
    return connections


def queued(edge: Edge) -> int:
    """The number of requests in the edge's queue."""
    rows = csv.DictReader(admin.run_command(edge.folder, "show stat -1 2 -1").lstrip("# ").splitlines())
    return sum(int(row["qcur"]) for row in rows if row["pxname"] in ("torchserve", "torchserve_http1"))


def fill(edge: Edge, *headers: str) -> list[socket.socket]:
    """Take both slots, and both places of the queue."""
    before = edge.torchserve.waiting
    connections = send(edge, 2)
    wait_until(lambda: edge.torchserve.waiting == before + 2)
    connections += send(edge, 2, *headers)
    wait_until(lambda: queued(edge) == 2, seconds=10)
    return connections


def test_a_request_beyond_the_queue_is_refused_and_the_others_are_answered(tmp_path):
    with running_edge(tmp_path, queue_size=2) as edge:
        connections = fill(edge)
        refused = edge.post(b"image")
        assert error(refused) == (429, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        assert edge.torchserve.waiting == 2
        # The connection can be used again
        assert edge.post(b"image").status_code == 429
        refused_text = edge.post(b"image", path="/v2/models/vinegrape/infer")
        assert (refused_text.status_code, int(refused_text.headers["retry-after"]) >= 1) == (429, True)
        assert refused_text.json()["error"].startswith("Too many requests wait")
        edge.torchserve.release()
        for connection in connections:
            with connection:
                exchange = read_to_end(connection)
                assert (exchange.status, exchange.end) == (200, "FIN")
        assert edge.post(b"image").status_code == 200
        line = edge.line_of(refused)
        assert (line["status"], line["error"]) == (429, "overloaded")


@pytest.mark.parametrize(("queue_wait_ms", "accepted"), [(1, 1), (150, 4), (0, 6)])
def test_a_request_that_would_wait_too_long_is_refused(tmp_path, queue_wait_ms, accepted):
    """HAProxy starts with a mean of 100 ms per response. With two slots, each request in the queue is 50 ms."""
    with running_edge(tmp_path, queue_size=6, queue_wait_ms=queue_wait_ms) as edge, contextlib.ExitStack() as stack:
        for connection in send(edge, 2):
            stack.enter_context(connection)
        wait_until(lambda: edge.torchserve.waiting == 2)
        for number in range(1, accepted + 1):
            (connection,) = send(edge, 1)
            stack.enter_context(connection)
            wait_until(lambda number=number: queued(edge) == number)
        assert error(edge.post(b"image")) == (429, "overloaded")
        edge.torchserve.release()


def test_a_self_check_is_not_refused_by_a_full_queue_and_not_counted(tmp_path):
    with running_edge(tmp_path, queue_size=2) as edge, contextlib.ExitStack() as stack:
        for _ in range(2):
            send_inside(edge, stack)
        wait_until(lambda: edge.torchserve.waiting == 2)
        connections = fill(edge)
        check = stack.enter_context(socket.socket(socket.AF_UNIX))
        check.connect(edge.inner().host)
        check.sendall(f"GET {PATH} HTTP/1.1\r\nHost: a\r\n{SELF_CHECK_HEADER}: token\r\n\r\n".encode())
        wait_until(lambda: queued(edge) == 3)
        edge.torchserve.release()
        check.settimeout(10)
        assert check.recv(12) == b"HTTP/1.1 200"
        assert sum(SELF_CHECK_HEADER in received["headers"] for received in edge.torchserve.received) == 1
        edge.wait_for_lines(4)
        assert edge.counts() == {("rest", "200", ""): 4}
        for connection in connections:
            connection.close()


@pytest.mark.parametrize("way", ["HTTP/2", "gateway"])
def test_a_request_is_not_started_if_its_client_leaves_the_queue(tmp_path, way):
    with running_edge(tmp_path, queue_size=2) as edge, contextlib.ExitStack() as stack:
        send_one = partial(curl_http2, edge, stack) if way == "HTTP/2" else partial(send_inside, edge, stack)
        started = [send_one(), send_one()]
        wait_until(lambda: edge.torchserve.waiting == 2)
        leaving = [send_one(), send_one()]
        wait_until(lambda: queued(edge) == 2)
        for leave in leaving:
            leave()
        wait_until(lambda: queued(edge) == 0)
        edge.torchserve.release()
        assert edge.post(b"image").status_code == 200
        assert len(edge.torchserve.received) == len(started) + 1
        if way == "HTTP/2":
            edge.wait_for_lines(5)
            assert edge.counts()[("rest", "499", "client_closed")] == 2


def curl_http2(edge: Edge, stack: contextlib.ExitStack) -> Callable[[], None]:
    """Send a request that waits; return what makes its client leave."""
    command = [program("curl", "curl"), "-s", "--http2-prior-knowledge", "-d", WAIT.decode()]
    client = stack.enter_context(subprocess.Popen([*command, f"http://127.0.0.1:{edge.port}{PATH}"]))
    stack.callback(client.kill)
    return client.kill


def send_inside(edge: Edge, stack: contextlib.ExitStack) -> Callable[[], None]:
    """Send a request that waits, as the gateway does; return what makes its client leave."""
    connection = stack.enter_context(socket.socket(socket.AF_UNIX))
    connection.connect(edge.inner().host)
    connection.sendall(request(WAIT))
    return connection.close


def test_a_client_of_http1_that_leaves_keeps_its_place(tmp_path):
    with running_edge(tmp_path, queue_size=2) as edge:
        for connection in fill(edge)[2:]:
            connection.close()
        edge.torchserve.release()
        wait_until(lambda: len(edge.torchserve.received) == 4)


@pytest.mark.parametrize("where", ["queue", "torchserve"])
def test_the_default_deadline(tmp_path, where):
    with running_edge(tmp_path, queue_size=2, deadline_ms=500) as edge:
        connections = fill(edge)
        connection = connections[-1 if where == "queue" else 0]
        exchange = read_to_end(connection)
        for other in connections:
            other.close()
        assert (exchange.status, exchange.end) == (504, "FIN")
        assert json.loads(exchange.data.partition(b"\r\n\r\n")[2])["error"]["type"] == "deadline_exceeded"
        edge.torchserve.release()


@pytest.mark.parametrize("where", ["queue", "torchserve"])
def test_a_request_has_its_own_deadline(tmp_path, where):
    with running_edge(tmp_path, queue_size=2) as edge, contextlib.ExitStack() as stack:
        if where == "queue":
            for _ in range(2):
                send_inside(edge, stack)
            wait_until(lambda: edge.torchserve.waiting == 2)
        response = edge.post({"wait": True}, headers={"x-request-timeout-ms": "300"})
        assert error(response) == (504, "deadline_exceeded")
        assert edge.line_of(response)["error"] == "deadline_exceeded"
        wait_until(lambda: queued(edge) == 0)  # its work is removed from the queue
        assert edge.torchserve.waiting == (2 if where == "queue" else 1)


def test_a_deadline_of_its_own_cannot_be_longer_than_the_default(tmp_path):
    with running_edge(tmp_path, deadline_ms=400) as edge:
        assert edge.post({"wait": True}, headers={"x-request-timeout-ms": "60000"}).status_code == 504


def test_a_response_within_its_own_deadline_reports_its_queue_time(edge):
    response = edge.post({"sleep": 0.02}, headers={"x-request-timeout-ms": "5000"})
    assert response.status_code == 200
    line = edge.line_of(response)
    assert line["queue_ms"] >= 0
    assert line["service_ms"] >= 20


def test_no_torchserve_is_unavailable(tmp_path):
    with running_edge(tmp_path, rest_port=2) as edge:  # nothing listens on port 2
        assert error(edge.post(b"image")) == (503, "unavailable")
        assert error(edge.post(b"image", headers={"x-request-timeout-ms": "9000"})) == (503, "unavailable")


def test_a_request_on_the_inner_entry_is_passed_on_as_it_is(edge):
    response = get(edge.inner(), PATH, 10, {"x-vinegrape-transport": "grpc"})
    assert response.status == 200
    assert json.loads(response.body)["headers"]["x-vinegrape-transport"] == "grpc"


# Limits of one client


def test_the_rate_of_one_client_is_limited(tmp_path):
    with running_edge(tmp_path, max_requests_per_second=3) as edge:
        responses = [edge.post(b"image") for _ in range(8)]
        assert [response.status_code for response in responses[:3]] == [200] * 3
        limited = next(response for response in responses if response.status_code != 200)
        assert error(limited) == (429, "rate_limited")
        assert limited.headers["retry-after"] == "1"
        with edge.connect("127.0.0.2") as other:
            other.sendall(request(b"image"))
            assert read_to_end(other).status == 200


def test_the_connections_of_one_client_are_limited(tmp_path):
    with running_edge(tmp_path, max_connections_per_client=3) as edge:
        idle = [edge.connect() for _ in range(3)]
        kept = request(b"image").replace(b"Connection: close\r\n", b"")
        exchange = edge.exchange(kept)
        assert (exchange.status, exchange.end) == (429, "FIN")  # otherwise it would be refused on all for ever
        with edge.connect("127.0.0.2") as other:
            other.sendall(request(b"image"))
            assert read_to_end(other).status == 200
        for connection in idle:
            connection.close()
        wait_until(lambda: edge.exchange(request(b"image")).status == 200)


def test_the_client_of_a_trusted_proxy_is_limited_by_its_own_address(tmp_path):
    with running_edge(tmp_path, max_requests_per_second=1, trusted_proxies="127.0.0.0/30, 10.0.0.0/8") as edge:

        def statuses(forwarded: str) -> list[int]:
            return [edge.post(b"image", headers={"x-forwarded-for": forwarded}).status_code for _ in range(2)]

        assert statuses("192.0.2.1") == [200, 429]
        assert statuses("192.0.2.2") == [200, 429]
        # The client wrote the first address itself, and the last is a trusted proxy
        assert statuses("192.0.2.9, 192.0.2.3, 10.0.0.7") == [200, 429]
        assert statuses("192.0.2.8, 192.0.2.3, 10.0.0.7") == [429, 429]
        edge.wait_for_lines(8)
        assert {line["client"] for line in edge.lines} == {"192.0.2.1", "192.0.2.2", "192.0.2.3"}
        with edge.connect("127.0.0.9") as untrusted:
            untrusted.sendall(request(b"image", "X-Forwarded-For: 192.0.2.1"))
            assert read_to_end(untrusted).status == 200
        assert edge.wait_for_lines(9)[-1]["client"] == "127.0.0.9"


def upload(edge: Edge, source: str, size: int) -> socket.socket:
    """Begin an upload of this size."""
    connection = edge.connect(source)
    connection.sendall(f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\nx".encode())
    return connection


def uploads(edge: Edge) -> dict[str, int]:
    """The number of uploads in progress by kind, and by kind and client."""
    rows = admin.run_command(edge.folder, "show table uploads").splitlines()[1:]
    return {row.split("key=")[1].split(" use=")[0]: int(row.rsplit("conn_cur=", 1)[1]) for row in rows if "key=" in row}


def test_a_client_has_four_large_uploads_at_a_time_and_all_clients_sixteen(tmp_path):
    with running_edge(tmp_path) as edge:
        begun = [upload(edge, f"127.0.0.{host}", 20_000_000) for host in (2, 3, 4, 5) for _ in range(4)]
        wait_until(lambda: uploads(edge).get("large") == 16)
        for source in ("127.0.0.2", "127.0.0.6"):
            with upload(edge, source, 20_000_000) as refused:
                exchange = read_to_end(refused)
                assert (exchange.status, exchange.end) == (429, "FIN")
                assert b"overloaded" in exchange.data
        assert edge.post(b"image").status_code == 200
        assert edge.post(b"x" * 1_000_000).status_code == 200
        begun.pop().close()
        wait_until(lambda: uploads(edge).get("large") == 15)
        with upload(edge, "127.0.0.6", 20_000_000) as accepted:
            wait_until(lambda: uploads(edge).get("large") == 16)
            accepted.sendall(b"x" * 19_999_999)
            accepted.settimeout(20)
            assert accepted.recv(12) == b"HTTP/1.1 200"
        for connection in begun:
            connection.close()


def test_the_streams_of_a_connection_count_like_connections(tmp_path):
    async def post_four_times(port: int) -> list[int]:
        client = Http2Client("127.0.0.1", port)
        try:
            return sorted(
                [answer.status for answer in await asyncio.gather(*(client.send(WAIT, 30) for _ in range(4)))]
            )
        finally:
            client.close()

    with running_edge(tmp_path, max_connections_per_client=2) as edge, ThreadPoolExecutor() as threads:
        statuses = threads.submit(asyncio.run, post_four_times(edge.port))
        wait_until(lambda: edge.counts() == {("rest", "429", "overloaded"): 2})
        edge.torchserve.release()
        assert statuses.result() == [200, 200, 429, 429]


def test_an_upload_that_is_too_slow(tmp_path):
    with running_edge(tmp_path, upload_timeout_s=1) as edge, upload(edge, "127.0.0.1", 100) as slow:
        exchange = read_to_end(slow)
        assert (exchange.status, exchange.end) == (408, "FIN")
        assert json.loads(exchange.data.partition(b"\r\n\r\n")[2])["error"]["type"] == "upload_timeout"
        assert edge.torchserve.received == []
        assert edge.wait_for_lines(1)[0]["status"] == 408
        assert edge.counts() == {("rest", "408", "upload_timeout"): 1}


def test_an_idle_connection_is_closed(tmp_path):
    with running_edge(tmp_path, keep_alive_timeout_s=1) as edge, edge.connect() as idle:
        idle.sendall(b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n")
        exchange = read_to_end(idle)
        assert (exchange.status, exchange.end) == (200, "FIN")


def test_the_requests_of_a_flood_are_dropped(edge):
    """More than 5,000 requests per second of one client. A slow machine needs more than one try."""
    headers = h2.post_headers(PATH, content_type="application/octet-stream")
    reset = h2.CANCEL.to_bytes(4, "big")

    def is_dropped() -> bool:
        with connected(("127.0.0.1", edge.port), "127.0.0.9") as flood, contextlib.suppress(OSError):
            flood.socket.sendall(h2.PREFACE + h2.frame(h2.SETTINGS, 0, 0))
            for first in range(1, 40_000, 200):
                streams = range(first, first + 200, 2)
                begin_and_end = (
                    h2.frame(h2.HEADERS, h2.END_HEADERS, stream, headers) + h2.frame(h2.RST_STREAM, 0, stream, reset)
                    for stream in streams
                )
                flood.socket.sendall(b"".join(begin_and_end))
                flood.drain()
        with edge.connect("127.0.0.9") as connection:
            connection.sendall(request(b"image"))
            return read_to_end(connection).data == b""

    wait_until(is_dropped)
    with edge.connect() as connection:
        connection.sendall(request(b"image"))
        assert read_to_end(connection).status == 200
