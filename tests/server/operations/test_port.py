"""The operations port over real HTTP."""

import socket
import sqlite3
import struct
from contextlib import ExitStack, suppress

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter

from tests.support.archives import plan
from tests.support.metadata import METADATA
from tests.support.server import wait_until
from vinegrape_server.feedback.endpoint import FeedbackEndpoint
from vinegrape_server.feedback.store import FILE, FeedbackStore
from vinegrape_server.operations import port as module
from vinegrape_server.operations.port import serve_operations
from vinegrape_server.plan import Served


class Service:
    """The reasons that the probes report."""

    live = ""
    ready = "starting"
    haproxy = b"haproxy_up 1\n"

    def haproxy_metrics(self) -> bytes:
        if not self.haproxy:
            raise ConnectionRefusedError("Connection refused")
        return self.haproxy


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def endpoint(tmp_path):
    with FeedbackStore(tmp_path, 100, 7) as store:
        yield FeedbackEndpoint(store, Served(plan()))


@pytest.fixture
def client(service, endpoint):
    registry = CollectorRegistry()
    Counter("leaves", "Leaves seen", registry=registry).inc(3)
    probes = {"/livez": lambda: service.live, "/readyz": lambda: service.ready}
    with (
        socket.create_server(("127.0.0.1", 0), backlog=128) as listener,
        serve_operations(listener, probes, registry, endpoint, {"/metrics/haproxy": service.haproxy_metrics}),
        httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}") as client,
    ):
        yield client


def test_readyz_follows_the_service(client, service):
    for reason, status, text in [("starting", 503, "starting\n"), ("", 200, "ok\n"), ("stopping", 503, "stopping\n")]:
        service.ready = reason
        response = client.get("/readyz")
        assert (response.status_code, response.text) == (status, text)


def test_further_metrics_are_passed_on_as_they_are(client, service):
    response = client.get("/metrics/haproxy")
    assert (response.status_code, response.content) == (200, b"haproxy_up 1\n")
    assert client.get("/metrics").text.count("haproxy") == 0
    service.haproxy = b""
    response = client.get("/metrics/haproxy")
    assert (response.status_code, response.text) == (503, "There are no such metrics now: Connection refused\n")
    assert client.post("/metrics/haproxy").status_code == 405


def test_livez_is_independent_of_readyz(client, service):
    assert client.get("/livez").status_code == 200
    service.live = "TorchServe has ended"
    assert (client.get("/livez").status_code, client.get("/livez").text) == (503, "TorchServe has ended\n")


def test_metrics_have_the_format_of_the_accept_header(client):
    plain = client.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=")
    assert "leaves_total 3.0" in plain.text
    assert "# EOF" not in plain.text
    newer = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert newer.headers["content-type"].startswith("application/openmetrics-text")
    assert newer.text.endswith("# EOF\n")


def test_an_invalid_accept_header_gives_plain_text(client):
    response = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=abc"})
    assert (response.status_code, "leaves_total 3.0" in response.text) == (200, True)


def test_the_query_is_ignored(client):
    assert client.get("/livez?verbose=1").status_code == 200


@pytest.mark.parametrize("path", ["/", "/metric", "/livez/", "/predictions/vinegrape"])
def test_another_path_is_404_and_lists_the_paths(client, path):
    response = client.get(path)
    assert response.status_code == 404
    assert "/livez, /readyz and /metrics" in response.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/metrics", 405), ("GET", "/feedback", 405), ("POST", "/other", 404), ("PUT", "/feedback", 501)],
)
def test_each_path_has_its_own_methods(client, method, path, status):
    assert client.request(method, path).status_code == status


def error(response: httpx.Response) -> tuple[int, str]:
    body = response.json()["error"]
    assert body["code"] == response.status_code
    return response.status_code, body["type"]


def test_feedback_is_stored(client, endpoint):
    feedback = {"label": "Ak", "probability": 0.5, "truth": "Ak"}
    assert client.post("/feedback", json=feedback).json() == {"stored": 1}
    assert client.post("/feedback?source=form", json=[feedback] * 2).json() == {"stored": 2}
    assert endpoint.store.summaries()[METADATA.version].correct == 3


def test_one_invalid_piece_of_feedback_rejects_the_list(client, endpoint):
    feedback = {"label": "Ak", "probability": 0.5, "truth": "Ak"}
    response = client.post("/feedback", json=[feedback, {**feedback, "truth": "?"}])
    assert error(response) == (400, "bad_request")
    assert response.json()["error"]["message"].startswith("Feedback 1: truth is '?'")
    assert endpoint.store.summaries() == {}


def test_only_json_of_a_known_and_small_size_is_feedback(client):
    assert error(client.post("/feedback", data={"label": "Ak"})) == (415, "unsupported_format")
    assert error(client.post("/feedback", content=b"[]", headers={"Content-Type": "text/plain"}))[0] == 415
    json_type = {"Content-Type": "application/json; charset=utf-8"}
    assert error(client.post("/feedback", content=iter([b"[]"]), headers=json_type)) == (400, "bad_request")
    assert error(client.post("/feedback", headers=json_type)) == (400, "bad_request")
    assert error(client.post("/feedback", content=b" " * 1_000_001, headers=json_type)) == (413, "too_large")


def test_feedback_that_cannot_be_stored_gets_the_reason(client, tmp_path):
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("DROP TABLE feedback")
    connection.close()
    response = client.post("/feedback", json={"label": "Ak", "probability": 0.5, "truth": "Ak"})
    assert error(response) == (503, "unavailable")
    assert "no such table" in response.text


def test_head_is_get_without_the_body(client):
    assert (client.head("/livez").status_code, client.head("/livez").text) == (200, "")
    assert client.head("/readyz").status_code == 503


def connect(client) -> socket.socket:
    return socket.create_connection((client.base_url.host, client.base_url.port), timeout=30)


INCOMPLETE_POST = b"POST /feedback HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n[{"


@pytest.mark.parametrize("sent", [b"", b"GET /livez HTTP/1.1\r\n", INCOMPLETE_POST])
def test_clients_without_a_complete_request_do_not_lock_out_others(client, monkeypatch, sent):
    monkeypatch.setattr(module, "_REQUEST_TIMEOUT_S", 1e9)
    with ExitStack() as stack:
        silent = [stack.enter_context(connect(client)) for _ in range(100)]
        for connection in silent[-20:]:
            connection.sendall(sent)
        assert [client.get("/livez").status_code for _ in range(40)] == [200] * 40
        assert silent[0].recv(1) == b""  # the oldest made room


def test_a_client_that_sends_nothing_is_disconnected(client, monkeypatch):
    monkeypatch.setattr(module, "_REQUEST_TIMEOUT_S", 0.2)
    with connect(client) as silent:
        assert silent.recv(1) == b""


def test_clients_that_do_not_read_their_response_do_not_lock_out_others_for_long(client, monkeypatch, service):
    monkeypatch.setattr(module, "_RESPONSE_TIMEOUT_S", 0.5)
    service.ready = "x" * 10_000_000  # more than the buffers of a connection hold
    with ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(connect(client)).sendall(b"GET /readyz HTTP/1.1\r\n\r\n")
        wait_until(lambda: status(client) == 200)


def status(client) -> int | None:
    with suppress(httpx.TransportError):
        return client.get("/livez").status_code


@pytest.mark.parametrize("path", ["/livez", "/metrics", "/none"])
def test_responses_do_not_name_the_software(client, path):
    assert set(client.get(path).headers) == {"content-type", "content-length"}


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\x00\r\n\r\n", b"PUT / HTTP/1.1\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"])
def test_the_text_of_an_error_is_our_own(client, sent):
    with connect(client) as other:
        other.sendall(sent)
        received = b"".join(iter(lambda: other.recv(1000), b""))
    assert received.rpartition(b"\r\n\r\n")[2] in {
        b"Bad Request\n", b"Not Implemented\n", b"HTTP Version Not Supported\n",
    }  # fmt: skip


def test_a_request_that_arrives_too_slowly_is_disconnected(client, monkeypatch):
    monkeypatch.setattr(module, "_REQUEST_TIMEOUT_S", 0.5)
    with connect(client) as slow:
        slow.settimeout(0.1)
        wait_until(lambda: is_closed_after_sending(slow))


def is_closed_after_sending(connection) -> bool:
    """Send one more byte, and return whether the server has closed the connection."""
    try:
        connection.sendall(b"x")
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def test_clients_that_disconnect_early_are_not_logged(client, capfd):
    for sent in (b"", b"GET /livez", b"GET /metrics HTTP/1.1\r\n\r\n"):
        with connect(client) as leaving:
            leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close with a reset
            leaving.sendall(sent)
    assert client.get("/livez").status_code == 200
    assert capfd.readouterr() == ("", "")
