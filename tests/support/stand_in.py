"""HTTP servers that respond like a correct or a broken vinegrape server, and count their requests."""

import contextlib
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Response(NamedTuple):
    """What a stand-in sends; `missing` bytes are announced in Content-Length, but never sent."""

    status: int
    body: Any
    missing: int = 0
    retry_after: int | None = None
    hang_up: bool = False  # close the connection without a response


Responder = Callable[[], Response]


def prediction(**changes) -> dict:
    """A correct response body, with changes."""
    probabilities = {"Ak": 0.7, "Nazli": 0.3}
    model = {"name": "vinegrape", "version": "1"}
    return {"label": "Ak", "probability": 0.7, "probabilities": probabilities, "model": model} | changes


def correct() -> Response:
    return Response(200, prediction())


def wrong() -> Response:
    """The label is not the most probable class."""
    return Response(200, prediction(label="Nazli"))


def failing() -> Response:
    return Response(500, {})


def refusing(retry_after: int) -> Responder:
    def respond() -> Response:
        error = {"code": 429, "type": "overloaded", "message": "..."}
        return Response(429, {"error": error}, retry_after=retry_after)

    return respond


def hanging_up() -> Response:
    return Response(0, None, hang_up=True)


def truncated() -> Response:
    return Response(200, prediction(), missing=50)


def late(seconds: float) -> Responder:
    def respond() -> Response:
        time.sleep(seconds)
        return correct()

    return respond


def stalling_once(seconds: float) -> Responder:
    """The first response is late, and all other requests wait for it."""
    lock, delays = threading.Lock(), iter([seconds])

    def respond() -> Response:
        with lock:
            time.sleep(next(delays, 0))
        return correct()

    return respond


def in_turn(*responders: Responder) -> Responder:
    """Each request gets the next responder; after the last, the first again."""
    lock, turns = threading.Lock(), itertools.cycle(responders)

    def respond() -> Response:
        with lock:
            responder = next(turns)
        return responder()

    return respond


@dataclass
class StandIn:
    """A running server.

    Attributes:
        url: its address.
        requests: the number of requests that it has received.
        headers: the headers of each request, with names in lower case.
        in_flight: the number of requests that it is responding to.
        most_in_flight: the highest value of `in_flight`.
    """

    url: str = ""
    requests: int = 0
    headers: list[dict[str, str]] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextlib.contextmanager
def stand_in(respond: Responder) -> Iterator[StandIn]:
    """Start a server that responds to every POST; stop it at the end of the block."""
    server_state = StandIn()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            with server_state.lock:
                server_state.requests += 1
                server_state.headers.append({name.lower(): value for name, value in self.headers.items()})
                server_state.in_flight += 1
                server_state.most_in_flight = max(server_state.in_flight, server_state.most_in_flight)
            response = respond()
            with server_state.lock:
                server_state.in_flight -= 1
            if response.hang_up:
                self.close_connection = True
                return
            content = json.dumps(response.body).encode()
            with contextlib.suppress(ConnectionError):  # the client may have timed out
                self.send_response(response.status)
                self.send_header("Content-Length", str(len(content) + response.missing))
                if response.retry_after is not None:
                    self.send_header("Retry-After", str(response.retry_after))
                self.end_headers()
                self.wfile.write(content)
                self.close_connection = bool(response.missing)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False  # a late response must not delay the end of a test
        server_state.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))  # seconds until it notices `shutdown`
        thread.start()
        try:
            yield server_state
        finally:
            server.shutdown()
            thread.join()
