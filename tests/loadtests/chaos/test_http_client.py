"""The client of open loops against a server of raw sockets that sends what each test sets."""

import asyncio

import pytest

from vinegrape_loadtests.chaos.http_client import HttpClient, build_request


async def exchange(*parts: bytes, requests: int = 1, timeout_s: float = 5, close: bool = False):
    """Send requests to a server that sends `parts` for each of them; return the answers and its connections."""
    connections = []

    async def serve(reader, writer):
        connections.append(writer)
        while await reader.readuntil(b"\r\n\r\n"):
            for part in parts:
                writer.write(part)
                await writer.drain()
            if close:
                writer.close()
                return

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    client = HttpClient("127.0.0.1", server.sockets[0].getsockname()[1])
    try:
        request = build_request(method="GET", path="/")
        return [await client.send(request, timeout_s) for _ in range(requests)], len(connections)
    finally:
        client.close()
        server.close()


def test_connections_are_kept_and_responses_may_come_in_parts():
    answers, connections = asyncio.run(
        exchange(b"HTTP/1.1 200 OK\r\nContent-Le", b"ngth: 2\r\n\r\no", b"k", requests=3)
    )
    assert [(answer.status, answer.body) for answer in answers] == [(200, b"ok")] * 3
    assert connections == 1


def test_a_connection_that_the_server_closes_is_not_used_again():
    response = b"HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    answers, connections = asyncio.run(exchange(response, requests=2, close=True))
    assert [answer.status for answer in answers] == [429, 429]
    assert connections == 2


def test_a_response_without_a_length_ends_with_the_connection():
    answers, _ = asyncio.run(exchange(b"HTTP/1.1 200 OK\r\n\r\nall", close=True))
    assert answers[0].body == b"all"


@pytest.mark.parametrize("part", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"])
def test_an_incomplete_response_is_an_error(part):
    with pytest.raises(ConnectionError):
        asyncio.run(exchange(part, close=True))


def test_a_response_that_does_not_come_in_time_is_an_error():
    with pytest.raises(TimeoutError):
        asyncio.run(exchange(timeout_s=0.05))


def test_a_request_has_a_length_if_it_has_a_body():
    assert build_request(b"ab", "image/png", path="/p", headers=("X: y",)) == (
        b"POST /p HTTP/1.1\r\nHost: vinegrape\r\nX: y\r\nContent-Type: image/png\r\nContent-Length: 2\r\n\r\nab"
    )
    assert build_request(method="GET", path="/") == b"GET / HTTP/1.1\r\nHost: vinegrape\r\n\r\n"
