"""The operations port: probes for orchestrators, metrics for Prometheus."""

from __future__ import annotations

import contextlib
import http
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, ClassVar

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

_CLIENT_S = 10  # for one request, however it trickles in
_CLIENTS = 32  # at once; more are turned away, for they would take the files that the server itself needs


@contextlib.contextmanager
def operations(
    host: str, port: int, why_not_live: Callable[[], str], why_not_ready: Callable[[], str], registry: CollectorRegistry
) -> Iterator[None]:
    """Answer `/livez`, `/readyz` and `/metrics` while the block runs.

    Args:
        host: to listen on.
        port: to listen on.
        why_not_live: empty while the service lives, else the reason why not.
        why_not_ready: empty while it wants requests, else the reason why not.
        registry: what `/metrics` says.
    """

    class Handler(_Handler):
        probes: ClassVar = {"/livez": why_not_live, "/readyz": why_not_ready}
        metrics = registry

    with _Server((host, port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # a connection that does not fit in waits a second

    def __init__(self, *arguments: Any) -> None:
        self._slots = threading.BoundedSemaphore(_CLIENTS)
        super().__init__(*arguments)

    def server_bind(self) -> None:
        """Bind, and do not look for a name in the DNS, which may not be there to answer."""
        TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Turn a client away where there are many."""
        if self._slots.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer a client within its time."""
        timer = threading.Timer(_CLIENT_S, _hang_up, (request,))
        timer.daemon = True
        timer.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            timer.cancel()
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that leave early, as some probes do."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def _hang_up(request: socket.socket) -> None:
    with contextlib.suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    probes: ClassVar[dict[str, Callable[[], str]]]
    metrics: CollectorRegistry

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._send(http.HTTPStatus.OK, *self._encode())
        elif path in self.probes:
            reason = self.probes[path]()
            status = http.HTTPStatus.SERVICE_UNAVAILABLE if reason else http.HTTPStatus.OK
            self._send(status, f"{reason or 'ok'}\n".encode())
        else:
            self._send(http.HTTPStatus.NOT_FOUND, b"There are /livez, /readyz and /metrics.\n")

    def do_HEAD(self) -> None:
        self.do_GET()

    def _encode(self) -> tuple[bytes, str]:
        """The metrics as the client asks for them; as plain text if what it asks for makes no sense."""
        for accept in (self.headers.get("Accept", ""), ""):
            with contextlib.suppress(TypeError, ValueError):
                encode, content_type = choose_encoder(accept)
                return encode(self.metrics), content_type
        raise AssertionError("plain text can always be encoded")

    def _send(self, status: http.HTTPStatus, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing: probes come every few seconds."""
