"""A stand-in for TorchServe: an HTTP server with responses that a test sets."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from vinegrape_handler.contract import SELF_CHECK_HEADER


@dataclass
class StandIn:
    """A running stand-in.

    Attributes:
        port: the port that it listens on.
        responses: status and body by path, or by method and path; other paths have status 404.
        tokens: the self-check token of each request received.
        bodies: the size of each body received.
    """

    port: int = 0
    responses: dict[str, tuple[int, str]] = field(default_factory=dict)
    tokens: list[str | None] = field(default_factory=list)
    bodies: list[int] = field(default_factory=list)

    def set_queue(self, requests: int) -> None:
        """Set the number of queued requests that the stand-in reports, as TorchServe's management port does."""
        queue = {"remainingCapacity": 98, "pendingRequests": requests}
        model = {"modelName": "vinegrape", "modelVersion": "1", "workers": [{"pid": 7}], "jobQueueStatus": queue}
        self.responses["/models/vinegrape/all"] = 200, json.dumps([model])


@contextlib.contextmanager
def standing_in() -> Iterator[StandIn]:
    """Start a stand-in, and end it with the block."""
    stand_in = StandIn()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            stand_in.bodies.append(len(self.rfile.read(int(self.headers["Content-Length"]))))
            self.do_GET()

        def do_GET(self) -> None:
            stand_in.tokens.append(self.headers[SELF_CHECK_HEADER])
            path = f"{self.command} {self.path}"
            status, body = stand_in.responses.get(path) or stand_in.responses.get(self.path, (404, "{}"))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        stand_in.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield stand_in
        finally:
            server.shutdown()
            thread.join()
