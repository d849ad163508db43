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

_CLIENT_TIMEOUT_S = 10  # the longest time of one connection; a slow client cannot extend it
_MAX_CLIENTS = 32  # connections at the same time; more could exceed this process's limit of open files


@contextlib.contextmanager
def serve_operations(
    host: str, port: int, why_not_live: Callable[[], str], why_not_ready: Callable[[], str], registry: CollectorRegistry
) -> Iterator[None]:
    """Serve `/livez`, `/readyz` and `/metrics` while the block runs.

    Args:
        host: the address to listen on.
        port: the port to listen on.
        why_not_live: returns the reason why the service is not live; empty if it is.
        why_not_ready: returns the reason why the service accepts no requests; empty if it does.
        registry: the metrics of `/metrics`.
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
    request_queue_size = 128  # connections that wait to be accepted; the client of a further one retries after 1 s

    def __init__(self, *arguments: Any) -> None:
        self._slots = threading.BoundedSemaphore(_MAX_CLIENTS)
        super().__init__(*arguments)

    def server_bind(self) -> None:
        """Bind without the DNS lookup of `HTTPServer`, because there may be no DNS server."""
        TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a client, or close the connection if there are too many clients."""
        if self._slots.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one client, and close its connection if it takes longer than the timeout."""
        timer = threading.Timer(_CLIENT_TIMEOUT_S, _close, (request,))
        timer.daemon = True
        timer.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            timer.cancel()
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Do not log clients that disconnect early, as some probes do."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def _close(request: socket.socket) -> None:
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
            self._send(http.HTTPStatus.NOT_FOUND, b"Not found. The paths are /livez, /readyz and /metrics.\n")

    def do_HEAD(self) -> None:
        self.do_GET()

    def _encode(self) -> tuple[bytes, str]:
        """Encode the metrics in the format of the Accept header; as plain text if the header is not valid."""
        for accept in (self.headers.get("Accept", ""), ""):
            with contextlib.suppress(TypeError, ValueError):
                encode, content_type = choose_encoder(accept)
                return encode(self.metrics), content_type
        raise AssertionError("prometheus_client rejects an empty Accept header")

    def _send(self, status: http.HTTPStatus, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing, because probes come every few seconds."""
