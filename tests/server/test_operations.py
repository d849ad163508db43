"""The operations port over real HTTP."""

import socket
from contextlib import ExitStack

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter
from vinegrape_server.operations import operations


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


def test_a_client_that_says_nothing_keeps_nobody_waiting(client):
    with socket.create_connection((client.base_url.host, client.base_url.port)):
        assert client.get("/livez").status_code == 200
