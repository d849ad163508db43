"""The operations port: probes for orchestrators, metrics for Prometheus."""

from __future__ import annotations

import contextlib
import http
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import ClassVar

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

_CLIENT_S = 10  # a client that says nothing is left


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

    def server_bind(self) -> None:
        """Bind, and do not look for a name in the DNS, which may not be there to answer."""
        TCPServer.server_bind(self)


class _Handler(BaseHTTPRequestHandler):
    probes: ClassVar[dict[str, Callable[[], str]]]
    metrics: CollectorRegistry
    timeout = _CLIENT_S

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            encode, content_type = choose_encoder(self.headers.get("Accept", ""))
            self._send(http.HTTPStatus.OK, encode(self.metrics), content_type)
        elif path in self.probes:
            reason = self.probes[path]()
            status = http.HTTPStatus.SERVICE_UNAVAILABLE if reason else http.HTTPStatus.OK
            self._send(status, f"{reason or 'ok'}\n".encode())
        else:
            self._send(http.HTTPStatus.NOT_FOUND, b"There are /livez, /readyz and /metrics.\n")

    def _send(self, status: http.HTTPStatus, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing: probes come every few seconds."""
