"""Both clients against HTTP servers that refuse, fail, hang up or are late."""

import json
import socket
import threading
import time

import pytest

from tests.support import stand_in
from tests.support.stand_in import Response, correct, hanging_up, in_turn, refusing
from vinegrape_client import Model, Prediction, Retries
from vinegrape_client.errors import (
    ConnectionFailed,
    DeadlineExceeded,
    NotFound,
    Overloaded,
    TooLarge,
    UnexpectedResponse,
    UnsupportedFormat,
)

PREDICTION = Prediction("Ak", 0.7, {"Ak": 0.7, "Nazli": 0.3}, Model("vinegrape", "1"))


class Sleep:
    """Records the delays, and does not wait."""

    def __init__(self):
        self.delays = []

    def __call__(self, seconds):
        self.delays.append(seconds)


@pytest.fixture
def sleep() -> Sleep:
    return Sleep()


def error(code: int, type_: str) -> stand_in.Responder:
    return lambda: Response(code, {"error": {"code": code, "type": type_, "message": "the reason"}})


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_a_prediction(connect):
    with stand_in.stand_in(correct) as server, connect(server.url) as client:
        assert client.predict(b"image") == PREDICTION
        assert server.headers[0]["content-type"] == "application/octet-stream"


def test_a_prediction_without_an_explanation_is_unexpected(connect):
    with stand_in.stand_in(correct) as server, connect(server.url) as client:
        with pytest.raises(UnexpectedResponse, match="has no explanation"):
            client.explain(b"image", class_="Ak")
        assert server.headers[0]["content-type"].startswith("multipart/form-data")


def test_a_refused_request_is_sent_again_after_the_delay_that_the_server_states(connect, sleep):
    responses = in_turn(refusing(7), refusing(7), correct)
    with stand_in.stand_in(responses) as server, connect(server.url, sleep=sleep) as client:
        assert client.predict(b"image") == PREDICTION
        assert server.requests == 3
    first, second = sleep.delays
    assert 7.125 <= first <= 7.25  # Retry-After, and a backoff of 0.25 s with jitter
    assert 7.25 <= second <= 7.5


def test_the_last_refusal_is_raised(connect, sleep):
    with (
        stand_in.stand_in(refusing(2)) as server,
        connect(server.url, sleep=sleep, retries=Retries(attempts=3)) as client,
    ):
        with pytest.raises(Overloaded) as raised:
            client.predict(b"image")
        assert (raised.value.code, raised.value.type, raised.value.retry_after_s) == (429, "overloaded", 2)
        assert server.requests == 3
        assert len(sleep.delays) == 2


def test_there_is_no_retry_that_would_be_too_late(connect, sleep):
    with stand_in.stand_in(refusing(60)) as server, connect(server.url, sleep=sleep, timeout_s=30) as client:
        with pytest.raises(Overloaded):
            client.predict(b"image")
        assert (server.requests, sleep.delays) == (1, [])


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (error(415, "unsupported_format"), UnsupportedFormat),
        (error(500, ""), UnexpectedResponse),
        (lambda: Response(404, {"code": 404, "type": "ModelNotFoundException", "message": "no model"}), NotFound),
        (lambda: Response(200, ["no", "prediction"]), UnexpectedResponse),
        (lambda: Response(200, {"label": "Ak"}), UnexpectedResponse),
    ],
)
def test_what_cannot_succeed_is_not_sent_again(connect, sleep, response, expected):
    with stand_in.stand_in(response) as server, connect(server.url, sleep=sleep) as client:
        with pytest.raises(expected):
            client.predict(b"image")
        assert (server.requests, sleep.delays) == (1, [])


@pytest.mark.parametrize(
    "failure", [hanging_up, stand_in.truncated, error(503, "unavailable"), lambda: Response(503, {})]
)
def test_a_lost_connection_and_an_unavailable_server_are_tried_again(connect, sleep, failure):
    with stand_in.stand_in(in_turn(failure, correct)) as server, connect(server.url, sleep=sleep) as client:
        assert client.predict(b"image") == PREDICTION
        assert server.requests == 2
        (delay,) = sleep.delays
        assert 0.125 <= delay <= 0.25


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_server_that_does_not_run(connect, sleep, scheme):
    with connect(f"{scheme}://127.0.0.1:{closed_port()}", sleep=sleep, retries=Retries(attempts=2)) as client:
        with pytest.raises(ConnectionFailed) as raised:
            client.predict(b"image")
        assert (raised.value.code, raised.value.type) == (0, "connection_failed")
        assert len(sleep.delays) == 1
        assert not client.ready()


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_server_that_does_not_respond_in_time(connect, sleep, scheme):
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        connect(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}", sleep=sleep) as client,
    ):
        with pytest.raises(DeadlineExceeded) as raised:
            client.predict(b"image", timeout_s=0.2)
        assert (raised.value.code, raised.value.type, sleep.delays) == (504, "deadline_exceeded", [])


def test_a_response_that_trickles_in_ends_at_the_deadline(connect):
    """Each byte arrives in time, but not the whole response."""
    ended = threading.Event()

    def trickle(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            while not ended.wait(0.05):
                connection.sendall(b" ")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=trickle, args=(server,))
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.getsockname()[1]}"
            with connect(url, timeout_s=0.5) as client, pytest.raises(DeadlineExceeded):
                client.predict(b"image")
        finally:
            ended.set()
            thread.join()


def test_the_server_is_told_how_much_time_is_left(connect, sleep):
    responses = in_turn(error(503, "unavailable"), correct)
    with stand_in.stand_in(responses) as server, connect(server.url, sleep=sleep, timeout_s=20) as client:
        client.predict(b"image")
        first, second = (int(headers["x-request-timeout-ms"]) for headers in server.headers)
        assert 0 < second <= first <= 20_000
        client.predict(b"image", timeout_s=5)
        assert int(server.headers[-1]["x-request-timeout-ms"]) <= 5_000


def test_one_connection_serves_all_requests(connect):
    with socket.create_server(("127.0.0.1", 0)) as server:
        connections = []

        def serve() -> None:
            connection, _ = server.accept()
            connections.append(connection)
            body = json.dumps(stand_in.prediction()).encode()
            with connection:
                for _ in range(3):
                    request = b""
                    while not request.endswith(b"\r\n\r\nimage"):
                        request += connection.recv(1 << 16)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

        thread = threading.Thread(target=serve)
        thread.start()
        with connect(f"http://127.0.0.1:{server.getsockname()[1]}") as client:
            assert [client.predict(b"image") for _ in range(3)] == [PREDICTION] * 3
        thread.join()
        assert len(connections) == 1


def test_the_api_key_is_sent_and_not_shown(connect):
    with stand_in.stand_in(correct) as server, connect(server.url, api_key="secret-key") as client:
        client.predict(b"image")
        assert server.headers[0]["x-api-key"] == "secret-key"
        assert "secret-key" not in repr(vars(client))


def test_a_path_and_an_open_file_are_read(connect, tmp_path):
    (tmp_path / "leaf.png").write_bytes(b"image")
    with stand_in.stand_in(correct) as server, connect(server.url, max_image_bytes=5) as client:
        client.predict(tmp_path / "leaf.png")
        client.predict(str(tmp_path / "leaf.png"))
        with (tmp_path / "leaf.png").open("rb") as file:
            client.predict(file)
        assert [headers["content-length"] for headers in server.headers] == ["5"] * 3
        (tmp_path / "film.mp4").write_bytes(b"images")
        with pytest.raises(TooLarge):
            client.predict(tmp_path / "film.mp4")
        with pytest.raises(FileNotFoundError):
            client.predict(tmp_path / "none.png")
        assert server.requests == 3


# Many images


def test_a_thousand_files_are_read_as_they_are_needed(connect, tmp_path):
    for number in range(1000):
        (tmp_path / f"{number:04}.png").write_bytes(b"image")
    taken = 0

    def paths():
        nonlocal taken
        for path in sorted(tmp_path.iterdir()):
            taken += 1
            yield path

    with stand_in.stand_in(correct) as server, connect(server.url) as client:
        ahead = 0
        for number, result in enumerate(client.predict_many(paths(), concurrency=4), start=1):
            assert (result.image.name, result.prediction, result.error) == (f"{number - 1:04}.png", PREDICTION, None)
            ahead = max(ahead, taken - number)
        assert (number, server.requests) == (1000, 1000)
        assert server.most_in_flight <= 4
        assert ahead < 16


def test_each_image_gets_its_own_result_in_order(connect, tmp_path):
    responses = in_turn(stand_in.late(0.2), error(415, "unsupported_format"), correct)
    with stand_in.stand_in(responses) as server, connect(server.url) as client:
        images = [b"1", b"2", tmp_path / "none.png", b"3"]
        results = list(client.predict_many(images, concurrency=1))
    assert [result.image for result in results] == images
    assert [type(result.error) for result in results] == [type(None), UnsupportedFormat, FileNotFoundError, type(None)]
    assert [result.prediction for result in results] == [PREDICTION, None, None, PREDICTION]
    assert server.requests == 3


def test_several_requests_run_at_the_same_time(connect):
    everyone = threading.Barrier(3, timeout=30)

    def respond() -> Response:
        everyone.wait()
        return correct()

    with stand_in.stand_in(respond) as server, connect(server.url) as client:
        assert [result.error for result in client.predict_many([b"image"] * 6, concurrency=3)] == [None] * 6
        assert server.most_in_flight == 3


def test_a_caller_may_stop_early(connect):
    with stand_in.stand_in(correct) as server, connect(server.url) as client:
        results = client.predict_many(iter(lambda: b"image", None), concurrency=2)  # without end
        assert next(results).prediction == PREDICTION
        results.close()
        assert server.requests <= 2 * 4 + 2
        assert client.predict(b"image") == PREDICTION


@pytest.mark.parametrize("options", [{"concurrency": 0}, {"concurrency": -1}])
def test_the_concurrency_is_checked(connect, options):
    with connect("http://127.0.0.1:1") as client, pytest.raises(ValueError, match="at least 1"):
        list(client.predict_many([b"image"], **options))


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan")])
def test_the_timeout_is_checked(connect, timeout_s):
    with pytest.raises(ValueError, match="more than 0"):
        connect("http://127.0.0.1:1", timeout_s=timeout_s)


def test_a_body_that_the_server_does_not_read_ends_at_the_deadline(connect):
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        connect(f"http://127.0.0.1:{silent.getsockname()[1]}") as client,
    ):
        start = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            client.predict(bytes(30_000_000), timeout_s=0.3)
        assert time.monotonic() - start < 20
