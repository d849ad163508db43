"""The operations port over real HTTP."""

import socket
import struct
from contextlib import ExitStack, suppress

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter

from tests.support.server import wait_until
from vinegrape_server.operations import port as module
from vinegrape_server.operations.port import operations


class Service:
    """What the probes ask about."""

    live = ""
    ready = "starting"


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def client(service):
    registry = CollectorRegistry()
    Counter("leaves", "Leaves seen", registry=registry).inc(3)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with ExitStack() as stack:
        stack.enter_context(operations("127.0.0.1", port, lambda: service.live, lambda: service.ready, registry))
        yield stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}"))


def test_ready_follows_the_service(client, service):
    for reason, status, text in [("starting", 503, "starting\n"), ("", 200, "ok\n"), ("stopping", 503, "stopping\n")]:
        service.ready = reason
        answer = client.get("/readyz")
        assert (answer.status_code, answer.text) == (status, text)


def test_live_is_another_question(client, service):
    assert client.get("/livez").status_code == 200
    service.live = "TorchServe has ended"
    assert (client.get("/livez").status_code, client.get("/livez").text) == (503, "TorchServe has ended\n")


def test_metrics_in_the_format_that_is_asked_for(client):
    plain = client.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=")
    assert "leaves_total 3.0" in plain.text
    assert "# EOF" not in plain.text
    newer = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert newer.headers["content-type"].startswith("application/openmetrics-text")
    assert newer.text.endswith("# EOF\n")


def test_a_query_does_not_matter(client):
    assert client.get("/livez?verbose=1").status_code == 200


@pytest.mark.parametrize("path", ["/", "/metric", "/livez/", "/predictions/vinegrape"])
def test_another_path_is_told_what_there_is(client, path):
    answer = client.get(path)
    assert answer.status_code == 404
    assert "/livez, /readyz and /metrics" in answer.text


def test_nothing_but_get(client):
    assert client.post("/metrics").status_code == 501


def test_head_is_get_without_the_body(client):
    assert (client.head("/livez").status_code, client.head("/livez").text) == (200, "")
    assert client.head("/readyz").status_code == 503


def test_a_format_that_makes_no_sense_is_plain_text(client):
    answer = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=abc"})
    assert (answer.status_code, "leaves_total 3.0" in answer.text) == (200, True)


def connect(client) -> socket.socket:
    return socket.create_connection((client.base_url.host, client.base_url.port), timeout=30)


def test_a_client_that_says_nothing_keeps_nobody_waiting(client):
    with connect(client):
        assert client.get("/livez").status_code == 200


def test_of_many_clients_some_are_turned_away(client, monkeypatch):
    """Else they would take all the files that a process may open; once they are gone, others are answered again."""
    monkeypatch.setattr(module, "_CLIENT_S", 0.5)
    with ExitStack() as stack:
        silent = [stack.enter_context(connect(client)) for _ in range(100)]
        assert all(each.recv(1) == b"" for each in silent)  # turned away, or hung up on
    wait_until(lambda: status(client) == 200)


def status(client) -> int | None:
    with suppress(httpx.TransportError):
        return client.get("/livez").status_code


def test_a_request_that_trickles_in_has_an_end(client, monkeypatch):
    monkeypatch.setattr(module, "_CLIENT_S", 0.5)
    with connect(client) as slow:
        slow.settimeout(0.1)
        wait_until(lambda: hung_up(slow))


def hung_up(slow) -> bool:
    """Whether the server has ended a connection, to which one byte more is sent."""
    try:
        slow.sendall(b"x")
        return slow.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def test_clients_that_leave_early_leave_no_trace(client, capfd):
    for words in (b"", b"GET /livez", b"GET /metrics HTTP/1.1\r\n\r\n"):
        with connect(client) as leaving:
            leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # with a reset
            leaving.sendall(words)
    assert client.get("/livez").status_code == 200
    assert capfd.readouterr() == ("", "")
