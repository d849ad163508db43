"""The access log and the metrics that are counted from it."""

import datetime
import io
import json

import pytest

from tests.server.edge.test_connections import post
from tests.support.edge import PATH, running_edge
from vinegrape_server.edge import configuration
from vinegrape_server.edge.access_log import AccessLog
from vinegrape_server.host.http import get

tools = pytest.mark.tools

FIELDS = [
    "time",
    "severity",
    "id",
    "traceparent",
    "client",
    "key",
    "transport",
    "method",
    "path",
    "status",
    "error",
    "version",
]
NUMBERS = ["bytes_in", "bytes_out", "queue_ms", "service_ms", "decode_ms", "inference_ms", "total_ms", "termination"]


@tools
def test_a_line(edge):
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    before = datetime.datetime.now(datetime.UTC)
    line = edge.line_of(edge.post({"sleep": 0.01}, path=f"{PATH}?token=secret", headers={"traceparent": traceparent}))
    assert list(line) == FIELDS + NUMBERS
    assert abs(datetime.datetime.fromisoformat(line["time"]) - before).total_seconds() < 20
    assert line["traceparent"] == traceparent
    assert (line["client"], line["transport"], line["method"], line["path"]) == ("127.0.0.1", "rest", "POST", PATH)
    assert (line["status"], line["error"], line["termination"]) == (200, "", "--")
    assert line["bytes_in"] > 14
    assert line["bytes_out"] > 300
    assert line["queue_ms"] == 0
    assert 10 <= line["service_ms"] <= line["total_ms"]


@tools
def test_a_request_that_never_reached_torchserve_has_neither_queue_nor_service_time(edge):
    line = edge.line_of(edge.client.get("/nothing"))
    assert (line["queue_ms"], line["service_ms"]) == (None, None)


@tools
@pytest.mark.parametrize(
    "path",
    [
        b'/a","status":200,"x":"',
        b"/" + "ü€😀".encode(),
        b"/\xff\xfe\xc0\x80",
        b"/%0a%0d{}",
        b"/\\u0000\\",
        b"/" + b'"' * 8000,
        b"/" + "😀".encode() * 500,
    ],
)
def test_a_client_cannot_change_the_form_of_a_line(tmp_path, path):
    with running_edge(tmp_path) as edge:
        exchange = edge.exchange(
            b"GET " + path + b' HTTP/1.1\r\nHost: "a\r\nUser-Agent: "}\r\nX-Request-Id: "}\r\nConnection: close\r\n\r\n'
        )
        edge.post(b"image")
        first, second = edge.wait_for_lines(2)
        assert (exchange.status, first["status"], second["status"]) in ((404, 404, 200), (400, 400, 200))
        assert list(first) == FIELDS + NUMBERS
        assert len(edge.lines) == 2


@tools
def test_every_request_is_in_exactly_one_series(tmp_path):
    with running_edge(tmp_path) as edge:
        for _ in range(3):
            edge.post(b"image")
        edge.post({"status": 415, "headers": {"x-vinegrape-error": "unsupported_format"}})
        edge.client.get("/nothing")
        edge.client.get("/ping")
        edge.client.delete(PATH)
        edge.exchange(b"NONSENSE\r\n\r\n")
        get(edge.inner(), PATH, 10)  # not a client
        with edge.connect() as left:
            left.sendall(post(b"x" * 1000)[:-10])
        edge.wait_for_lines(9)
        assert edge.counts() == {
            ("rest", "200", ""): 4,
            ("rest", "415", "unsupported_format"): 1,
            ("rest", "404", "not_found"): 1,
            ("rest", "405", "method_not_allowed"): 1,
            ("rest", "400", "bad_request"): 1,
            ("rest", "499", "client_closed"): 1,
        }


# Without HAProxy: lines as it writes them

LINE = {
    "time": 1_700_000_000_123,
    "id": "7",
    "traceparent": "-",
    "client": "192.0.2.1",
    "key": "-",
    "transport": "rest",
    "method": "POST",
    "path": PATH,
    "status": 200,
    "grpc_status": "-",
    "error": "-",
    "call_error": "-",
    "version": "v1",
    "backend": "torchserve",
    "server": "torchserve",
    "bytes_in": 10,
    "bytes_out": 20,
    "queue_ms": "-",
    "timing": "decode;dur=4.2, inference;dur=2.0",
    "Tw": 3,
    "Tr": 7,
    "Ta": 11,
    "termination": "--",
}


def read(*changes: dict) -> tuple[list[dict], dict]:
    """The lines written, and the samples counted, of HAProxy's lines with these changes."""
    output = io.StringIO()
    log = AccessLog(output)
    log.add([json.dumps({**LINE, **change}).encode() for change in changes])
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for metric in log.collect()
        for sample in metric.samples
        if sample.value or sample.name != "vinegrape_responses_total"
    }
    return [json.loads(line) for line in output.getvalue().splitlines()], samples


def test_the_times_of_a_line():
    (line,), samples = read({})
    assert line["time"] == "2023-11-14T22:13:20.123Z"
    assert (line["queue_ms"], line["service_ms"], line["total_ms"]) == (3, 7, 11)
    assert (line["decode_ms"], line["inference_ms"], line["version"]) == (4.2, 2.0, "v1")
    assert samples[("vinegrape_queue_seconds_sum", "rest")] == 0.003
    assert samples[("vinegrape_response_seconds_sum", "rest")] == 0.011


def test_a_grpc_call_has_the_times_that_the_gateway_reports():
    reached = {"transport": "grpc", "backend": "gateway", "server": "gateway", "Tw": 0, "Tr": 50, "queue_ms": "40"}
    (line,), samples = read(reached)
    assert (line["queue_ms"], line["service_ms"]) == (40, 10)
    assert samples[("vinegrape_queue_seconds_sum", "grpc")] == 0.04
    assert samples[("vinegrape_response_seconds_count", "grpc")] == 1


def test_only_requests_with_processed_images_count_as_responses_of_the_model():
    (line,), samples = read({"timing": "-", "backend": "operations", "server": "operations", "path": "/ping"})
    assert (line["queue_ms"], line["decode_ms"], line["inference_ms"]) == (None, None, None)
    assert samples[("vinegrape_queue_seconds_count", "rest")] == 0
    assert samples[("vinegrape_response_seconds_count", "rest")] == 0
    assert samples[("vinegrape_responses_total", "rest", "200", "")] == 1


def test_the_queue_time_behind_the_private_entry_is_no_service_time():
    (line,), _ = read({"Tw": 0, "Tr": 50, "queue_ms": "40"})
    assert (line["queue_ms"], line["service_ms"]) == (40, 10)


@pytest.mark.parametrize("state", ["CR", "CQ", "CC", "CH"])
def test_a_client_that_left_before_its_response(state):
    (line,), samples = read({"termination": state, "status": 503, "Tw": -1, "Tr": -1})
    assert (line["status"], line["error"], line["queue_ms"]) == (499, "client_closed", None)
    assert samples[("vinegrape_responses_total", "rest", "499", "client_closed")] == 1


def test_a_client_that_left_during_its_response_is_counted_with_its_status():
    _, samples = read({"termination": "CD"})
    assert samples[("vinegrape_responses_total", "rest", "200", "")] == 1


def test_grpc_calls_that_reached_the_gateway_are_logged_and_not_counted():
    lines, samples = read({"transport": "grpc", "backend": "gateway", "server": "gateway", "grpc_status": "-"})
    assert lines[0]["transport"] == "grpc"
    assert not [name for name in samples if name[0] == "vinegrape_responses_total"]


def test_the_gateways_error_of_a_call_is_logged():
    failed = {"transport": "grpc", "backend": "gateway", "server": "gateway", "call_error": "broken_image"}
    (line,), samples = read(failed)
    assert line["error"] == "broken_image"
    assert not [name for name in samples if name[0] == "vinegrape_responses_total"]


def test_grpc_calls_that_the_edge_refused_are_counted_with_their_grpc_status():
    refused = {"transport": "grpc", "server": "<NOSRV>", "grpc_status": "16", "error": "unauthorized"}
    unreachable = {"transport": "grpc", "server": "gateway", "grpc_status": "14", "error": "unavailable"}
    _, samples = read(refused, unreachable)
    assert samples[("vinegrape_responses_total", "grpc", "UNAUTHENTICATED", "unauthorized")] == 1
    assert samples[("vinegrape_responses_total", "grpc", "UNAVAILABLE", "unavailable")] == 1


def test_a_line_that_is_not_json_is_ignored():
    output = io.StringIO()
    AccessLog(output).add([b"Proxy public stopped", b""])
    assert output.getvalue() == ""


def test_without_an_output_requests_are_only_counted():
    log = AccessLog(None)
    log.add([json.dumps(LINE).encode()])
    assert [s.value for m in log.collect() for s in m.samples if s.name == "vinegrape_responses_total" and s.value] == [
        1
    ]


@tools
def test_the_supervisors_own_requests_are_neither_logged_nor_counted(tmp_path):
    with running_edge(tmp_path) as edge:
        headers = configuration.probe_headers(tmp_path)
        assert edge.client.get("/ping", headers=headers).status_code == 200
        for value in ("wrong", ""):
            assert edge.client.get("/ping", headers=dict.fromkeys(headers, value)).status_code == 200
        assert len(edge.wait_for_lines(2)) == 2
        assert edge.counts() == {("rest", "200", ""): 2}
