"""HTTP servers that answer as one might that is broken, and count what they were asked."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def prediction(**changes) -> dict:
    """A right answer, with changes."""
    probabilities = {"Ak": 0.7, "Nazli": 0.3}
    model = {"name": "vinegrape", "version": "1"}
    return {"label": "Ak", "probability": 0.7, "probabilities": probabilities, "model": model} | changes


def right() -> tuple[int, dict]:
    return 200, prediction()


def wrong() -> tuple[int, dict]:
    return 200, prediction(label="Nazli")


def failing() -> tuple[int, dict]:
    return 500, {}


def late(seconds: float) -> Callable[[], tuple[int, dict]]:
    def answer() -> tuple[int, dict]:
        time.sleep(seconds)
        return right()

    return answer


def stalling_once(seconds: float) -> Callable[[], tuple[int, dict]]:
    """The first request takes its time, and all others wait for it."""
    lock, delays = threading.Lock(), iter([seconds])

    def answer() -> tuple[int, dict]:
        with lock:
            time.sleep(next(delays, 0))
        return right()

    return answer


@dataclass
class StandIn:
    """A running server, and how many requests it has got."""

    url: str = ""
    asked: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextlib.contextmanager
def standing_in(answer: Callable[[], tuple[int, dict]], withheld: int = 0) -> Iterator[StandIn]:
    """Answer every POST by what `answer` gives: a status and JSON; break off before bytes that are promised."""
    stand_in = StandIn()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            with stand_in.lock:
                stand_in.asked += 1
            status, body = answer()
            content = json.dumps(body).encode()
            with contextlib.suppress(ConnectionError):  # whoever asked may have given up
                self.send_response(status)
                self.send_header("Content-Length", str(len(content) + withheld))
                self.end_headers()
                self.wfile.write(content)
                self.close_connection = bool(withheld)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        stand_in.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield stand_in
        finally:
            server.shutdown()
            thread.join()
