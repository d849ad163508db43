"""How the edge treats connections: HTTP/1.0, HTTP/1.1, HTTP/2, half-closed and closed ones."""

import json
import subprocess

import pytest

from tests.conftest import program
from tests.support.edge import PATH, read_to_end

pytestmark = pytest.mark.tools


def post(body: bytes = b"image", *headers: str, version: str = "1.1") -> bytes:
    lines = [f"POST {PATH} HTTP/{version}", "Host: a", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.mark.parametrize(
    "data",
    [
        post(b"image", "Connection: close"),
        post(version="1.0"),
        b"GET /ping HTTP/1.0\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    ],
)
def test_a_connection_is_closed_if_the_client_asks_for_it(edge, data):
    exchange = edge.exchange(data)
    assert (exchange.status, exchange.end) == (200, "FIN")
    assert b"connection: close" in exchange.data.lower() or b"HTTP/1.0" in data


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"DELETE %s HTTP/1.1\r\nHost: a\r\n\r\n" % PATH.encode(), 405),
        (post(b'{"status": 415, "headers": {"x-vinegrape-error": "unsupported_format"}}'), 415),
        (post(b'{"status": 503, "headers": {"x-vinegrape-error": ""}}'), 503),
    ],
)
def test_an_error_leaves_the_connection_open(edge, data, status):
    with edge.connect() as connection:
        for _ in range(2):
            connection.sendall(data)
            response = connection.recv(1 << 16)
            assert response.startswith(f"HTTP/1.1 {status}".encode())
        connection.sendall(post(b"image", "Connection: close"))
        exchange = read_to_end(connection)
        assert (exchange.status, exchange.end) == (200, "FIN")


@pytest.mark.parametrize("body", [b"", b"image", b"x" * 1_000_000], ids=["empty", "small", "large"])
def test_a_half_closed_client_gets_its_response(edge, body):
    exchange = edge.exchange(post(body), half_close=True)
    assert (exchange.status, exchange.end) == (200, "FIN")


def test_a_client_that_waits_for_100_continue_gets_it(edge):
    with edge.connect() as connection:
        connection.sendall(post(b"", "Expect: 100-continue").replace(b"Length: 0", b"Length: 5"))
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"image")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")


def test_a_client_that_waits_for_100_continue_gets_the_refusal_instead(edge):
    exchange = edge.exchange(post(b"", "Expect: 100-continue").replace(b"Length: 0", b"Length: 99999999"))
    assert (exchange.status, exchange.end) == (413, "FIN")


def test_a_connection_is_closed_after_a_thousand_requests(edge):
    request = b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n"
    exchange = edge.exchange(request * 1100)
    assert exchange.data.count(b"HTTP/1.1 404") == 1000
    assert exchange.data.count(b"connection: close") == 1
    assert exchange.data.rindex(b"connection: close") > exchange.data.rindex(b"HTTP/1.1 404")


def test_pipelined_requests_are_answered_in_order(edge):
    bodies = [b"x" * 5, b"x" * 10, b"x" * 7, b"x"]
    requests = [post(body) for body in bodies]
    requests[-1] = post(bodies[-1], "Connection: close")
    exchange = edge.exchange(b"".join(requests))
    assert exchange.end == "FIN"
    lengths = [
        json.loads(part[part.index(b"{") :].partition(b"HTTP/1.1")[0])["bytes"]
        for part in exchange.data.split(b"HTTP/1.1 200")[1:]
    ]
    assert lengths == [5, 10, 7, 1]


def test_an_error_among_pipelined_requests_does_not_concern_the_next_one(edge):
    exchange = edge.exchange(b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n" + post(b"image", "Connection: close"))
    assert exchange.data.index(b"HTTP/1.1 404") < exchange.data.index(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "data",
    [
        b"NONSENSE\r\n\r\n",
        b"GET /a\x01b HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_malformed_http_is_refused(edge, data):
    exchange = edge.exchange(data)
    assert (exchange.status, exchange.end) == (400, "FIN")


def curl(edge, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    url = f"http://127.0.0.1:{edge.port}"
    arguments = tuple(argument.replace("URL", url) for argument in arguments)
    return subprocess.run([program("curl", "curl"), "-sS", "-m", "20", *arguments], capture_output=True)


@pytest.mark.parametrize("body", [b"image", b"x" * 2_000_000], ids=["small", "large"])
def test_http2_without_tls(edge, tmp_path, body):
    file = tmp_path / "body"
    file.write_bytes(body)
    done = curl(edge, "--http2-prior-knowledge", "-T", str(file), f"URL{PATH}", "-w", "\n%{http_version} %{http_code}")
    text, _, result = done.stdout.rpartition(b"\n")
    assert result == b"2 200"
    assert json.loads(text)["bytes"] == len(body)


def test_an_error_over_http2(edge):
    done = curl(edge, "--http2-prior-knowledge", "URL/nothing", "-d", "x" * 5000, "-w", "\n%{http_code}")
    assert json.loads(done.stdout.splitlines()[0])["error"]["type"] == "not_found"
    assert done.stdout.endswith(b"404")


def test_a_request_that_torchserve_does_not_answer_can_be_sent_again(edge):
    exchange = edge.exchange(post(b'{"hang_up": true}', "Connection: close"))
    assert (exchange.status, exchange.end) == (503, "FIN")
    assert b"retry-after: 1" in exchange.data
    assert b'"unavailable"' in exchange.data
