"""A server is ready only while people are answered, and becomes ready again by itself."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import psutil
import pytest

from tests.conftest import program
from tests.support.processes import descendants, gateway, haproxy, temporary_folder, workers
from tests.support.server import Live, serving, wait_until

pytestmark = pytest.mark.live

RESPONSE_TIMEOUT_S = 8  # TorchServe replaces a worker after this time; readiness notices it earlier

# Netty cannot parse it, because of its charset
FORM = (
    b'--b\r\nContent-Disposition: form-data; name="data"\r\nContent-Type: text/plain; charset=nope\r\n\r\n%b\r\n--b--'
)
FORM_TYPE = {"content-type": "multipart/form-data; boundary=b"}


@pytest.fixture(scope="module")
def watched_server(tiny_archive, tmp_path_factory) -> Iterator[Live]:
    """A server of two workers, which tests disturb and leave ready."""
    log = tmp_path_factory.mktemp("watched") / "log"
    with serving(tiny_archive, log, workers=2, response_timeout_s=RESPONSE_TIMEOUT_S) as live:
        yield live


@pytest.fixture
def live(watched_server) -> Live:
    wait_until(watched_server.is_ready)
    return watched_server


def reason(live) -> str:
    """Why the server is not ready; empty if it is."""
    return "" if live.is_ready() else live.operations("/readyz").text


@pytest.mark.xdist_group("watched_server")
@pytest.mark.parametrize("number", [pytest.param(1, marks=pytest.mark.nightly), 2])
def test_workers_that_hang_are_noticed_and_replaced(live, image, number):
    stopped = workers(live.process)[:number]
    for worker in stopped:
        worker.suspend()
    wait_until(lambda: reason(live))
    assert live.operations("/livez").status_code == 200
    wait_until(lambda: not any(worker.is_running() for worker in stopped))
    wait_until(live.is_ready)
    assert live.post(image).status_code == 200


@pytest.mark.xdist_group("watched_server")
def test_workers_that_torchserve_has_lost_are_noticed_and_replaced(live, image):
    """Pipelined requests make TorchServe lose a request, and its thread of that worker waits for the response."""
    ended = threading.Event()
    threads = [threading.Thread(target=pipeline, args=(live, ended)) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: reason(live))
    finally:
        ended.set()
        for thread in threads:
            thread.join(60)
    wait_until(live.is_ready)
    assert live.post(image).status_code == 200


def pipeline(live, ended) -> None:
    """Keep 20 requests waiting on one connection. TorchServe closes it now and then."""
    request = b"GET /predictions/vinegrape HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\n\r\n"
    while not ended.is_set():
        waiting = 0
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", live.ports["rest_port"]), timeout=1) as connection,
        ):
            while not ended.is_set():
                connection.sendall(request * (20 - waiting))
                waiting = 20 - connection.recv(1 << 20).count(b"HTTP/1.1 ")


@pytest.mark.xdist_group("watched_server")
def test_a_killed_gateway_is_started_again(live, image):
    first = gateway(live.process)
    first.kill()
    wait_until(lambda: live.metrics()["vinegrape_process_restarts_total", "gateway"] == 1)
    wait_until(lambda: b'"Ak"' in live.call(image))
    assert gateway(live.process) != first
    wait_until(live.is_ready)


@pytest.fixture
def edge_server(tiny_archive, tmp_path) -> Iterator[Live]:
    """A server behind an edge that accepts at most 30 connections."""
    program("haproxy", "haproxy")
    with serving(tiny_archive, tmp_path / "log", edge=True, max_connections=30) as live:
        yield live


@pytest.mark.tools
def test_an_edge_that_does_not_respond_is_noticed_and_one_that_ends_is_started_again(edge_server, image):
    assert edge_server.post(image).status_code == 200
    assert b'"Ak"' in edge_server.call(image)

    with contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(socket.create_connection(("127.0.0.1", edge_server.rest_port)))
        wait_until(lambda: reason(edge_server))  # no connection is left for others
    wait_until(edge_server.is_ready)

    haproxy(edge_server.process).suspend()
    wait_until(lambda: reason(edge_server))
    haproxy(edge_server.process).resume()
    wait_until(edge_server.is_ready)

    first = haproxy(edge_server.process)
    first.kill()
    wait_until(lambda: edge_server.metrics()["vinegrape_process_restarts_total", "edge"] == 1)
    wait_until(lambda: responds(edge_server, image))
    assert haproxy(edge_server.process) != first
    wait_until(edge_server.is_ready)


def responds(live, image) -> bool:
    try:
        return live.post(image).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.tools
def test_the_servers_own_requests_are_not_counted(edge_server, image):
    """Probes go through the edge, its private entry and the gateway every second."""
    assert edge_server.post(image).status_code == 200
    assert b'"Ak"' in edge_server.call(image)

    def counts() -> dict[tuple[str, ...], float]:
        names = ("vinegrape_responses_total", "vinegrape_requests_total", "ts_inference_requests_total")
        return {key: value for key, value in edge_server.metrics().items() if key[0] in names and value}

    expected = {
        ("vinegrape_responses_total", "", "200", "rest"): 1,
        ("vinegrape_responses_total", "", "200", "grpc"): 1,
        ("vinegrape_requests_total", "", "200", "rest"): 1,
        ("vinegrape_requests_total", "", "200", "grpc"): 1,
        ("ts_inference_requests_total",): 2,
    }
    before = torchserves_own_count(edge_server)
    wait_until(lambda: torchserves_own_count(edge_server) >= before + 3)
    wait_until(lambda: counts() == expected)


def torchserves_own_count(live) -> float:
    """The number of requests that TorchServe itself reports."""
    transport = httpx.HTTPTransport(uds=str(temporary_folder(live.process) / "metrics.sock"))
    with httpx.Client(transport=transport) as client:
        text = client.get("http://localhost/metrics").text
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("ts_inference_requests_total{"))


def test_readiness_asks_for_its_own_model(tiny_archive, tmp_path):
    """Another model of the same archive answers, and ours is deleted."""
    with serving(tiny_archive, tmp_path / "log") as live:
        transport = httpx.HTTPTransport(uds=str(temporary_folder(live.process) / "management.sock"))
        with httpx.Client(transport=transport, base_url="http://localhost") as management:
            other = {"url": "vinegrape.mar", "model_name": "other", "initial_workers": "1", "synchronous": "true"}
            assert management.post("/models", params=other, timeout=60).status_code == 200
            assert management.delete("/models/vinegrape/tiny").status_code == 200
        assert live.client.post("/predictions/other", content=b"no image").status_code == 415
        wait_until(lambda: reason(live))


def test_a_torchserve_without_memory_for_bodies_is_not_ready(tiny_archive, tmp_path):
    """With Netty's pool, forms that it cannot parse are never released. By default there is no pool."""
    options = {"JAVA_TOOL_OPTIONS": "-Dio.netty.allocator.type=pooled -XX:MaxDirectMemorySize=64m"}
    with serving(tiny_archive, tmp_path / "log", environment=options) as live:

        def has_no_memory(size: int) -> bool:
            # TorchServe may close the connection while the rest of the form arrives
            with contextlib.suppress(httpx.TransportError):
                return live.post(FORM % bytes(size), headers=FORM_TYPE).status_code == 507
            return False

        for size in (10_000_000, 1_000_000):
            wait_until(lambda size=size: has_no_memory(size))
        wait_until(lambda: reason(live))


def test_forms_that_cannot_be_parsed_leave_the_server_ready(tiny_archive, image, tmp_path):
    """They need more memory together than Java may use."""
    options = {"JAVA_TOOL_OPTIONS": "-XX:MaxDirectMemorySize=64m"}
    with serving(tiny_archive, tmp_path / "log", environment=options) as live:
        for _ in range(10):
            assert live.post(FORM % bytes(14_000_000), headers=FORM_TYPE).status_code == 500
        assert live.post(image + bytes(9_000_000)).status_code == 200
        assert live.is_ready()


@pytest.mark.nightly
def test_a_server_that_was_suspended_is_live_at_once(tiny_archive, tmp_path):
    """All its processes stand still for longer than a silent TorchServe is taken for live."""
    with serving(tiny_archive, tmp_path / "log", workers=2) as live:
        processes = [psutil.Process(live.process.pid), *descendants(live.process)]
        for process in processes:
            process.suspend()
        time.sleep(15)
        for process in reversed(processes):
            process.resume()
        assert live.operations("/livez").text == "ok\n"
        assert live.operations("/readyz").text == "ok\n"
