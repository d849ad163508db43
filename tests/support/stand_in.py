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
    """A running server, and the number of requests that it has received."""

    url: str = ""
    requests: int = 0
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
            response = respond()
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
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server_state
        finally:
            server.shutdown()
            thread.join()
