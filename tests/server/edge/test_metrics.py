"""What the edge reports about itself, and where it states that a request's time went."""

import contextlib

import pytest

from tests.server.edge.test_overload import fill
from tests.support.edge import running_edge
from vinegrape_server.edge.access_log import AccessLog
from vinegrape_server.edge.metrics import EdgeMetrics

pytestmark = pytest.mark.tools


def gauges(metrics: EdgeMetrics) -> dict[str, float]:
    return {sample.name: sample.value for metric in metrics.collect() for sample in metric.samples if not sample.labels}


def test_requests_that_wait_and_that_are_at_torchserve_are_counted(tmp_path):
    with running_edge(tmp_path, queue_size=2) as edge, contextlib.ExitStack() as stack:
        metrics = EdgeMetrics(edge.log, edge.folder)
        assert gauges(metrics) == {"vinegrape_queue_requests": 0, "vinegrape_requests_in_progress": 0}
        for connection in fill(edge):
            stack.enter_context(connection)
        assert gauges(metrics) == {"vinegrape_queue_requests": 2, "vinegrape_requests_in_progress": 2}
        edge.torchserve.release()


def test_haproxys_own_metrics(edge):
    text = EdgeMetrics(edge.log, edge.folder).of_haproxy().decode()
    assert 'haproxy_frontend_http_requests_total{proxy="public"}' in text
    assert 'haproxy_backend_current_queue{proxy="torchserve"}' in text


def test_without_haproxy_there_are_only_the_metrics_of_the_log(tmp_path):
    metrics = EdgeMetrics(AccessLog(None), tmp_path)
    assert gauges(metrics) == {}
    assert "vinegrape_response_seconds" in {metric.name for metric in metrics.collect()}
    with pytest.raises(OSError, match="No such file"):
        metrics.of_haproxy()


# Server-Timing

WORKER = {"server-timing": "decode;dur=4.2, inference;dur=2.0"}


def timing(header: str) -> dict[str, float]:
    """The milliseconds by name, in the order of the header."""
    parts = (part.partition(";dur=") for part in header.split(", "))
    return {name: float(value) for name, _, value in parts}


@pytest.mark.parametrize("headers", [{}, {"x-request-timeout-ms": "9000"}])
def test_a_response_states_where_its_time_went(edge, headers):
    response = edge.post({"sleep": 0.02, "headers": WORKER}, headers=headers)
    found = timing(response.headers["server-timing"])
    assert list(found) == ["queue", "decode", "inference", "total"]
    assert (found["decode"], found["inference"]) == (4.2, 2.0)
    assert found["queue"] < 20 <= found["total"]
    line = edge.line_of(response)
    assert (line["decode_ms"], line["inference_ms"]) == (4.2, 2.0)
    assert line["queue_ms"] == found["queue"]


@pytest.mark.parametrize("path", ["/ping", "/nothing", "/openapi.json"])
def test_a_response_without_an_image_states_the_total(edge, path):
    assert list(timing(edge.client.get(path).headers["server-timing"])) == ["total"]
