"""The operations port: probes for orchestrators, metrics for Prometheus, and feedback."""

from __future__ import annotations

import contextlib
import http
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any, ClassVar

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from vinegrape_handler.errors import RequestError
from vinegrape_server.feedback.endpoint import FeedbackEndpoint, error_response
from vinegrape_server.host.threads import serving_in_thread

# The longest times from the connection to a complete request, and from there to the end of the response
_REQUEST_TIMEOUT_S, _RESPONSE_TIMEOUT_S = 1, 10
_MAX_CLIENTS = 32  # connections at the same time; more could exceed this process's limit of open files
_METRICS, _FEEDBACK = "/metrics", "/feedback"


@contextlib.contextmanager
def serve_operations(
    listener: socket.socket,
    probes: Mapping[str, Callable[[], str]],
    registry: CollectorRegistry,
    feedback: FeedbackEndpoint,
    texts: Mapping[str, Callable[[], bytes]] = MappingProxyType({}),
) -> Iterator[None]:
    """Serve the probes, `/metrics` and `/feedback` while the block runs.

    Args:
        listener: the listening socket of the port.
        probes: by their path, such as `/livez`: returns the reason why the probe fails; empty if it passes.
        registry: the metrics of `/metrics`.
        feedback: responds to `POST /feedback`.
        texts: further metrics, in Prometheus' text format, by their path. An OSError says that there are none.
    """
    served_probes, served_texts = probes, texts

    class Handler(_Handler):
        probes: ClassVar = served_probes
        texts: ClassVar = served_texts
        metrics = registry
        endpoint = feedback

    with serving_in_thread(_Server(listener, Handler)):
        yield


class _Server(ThreadingHTTPServer):
    """Serves each client in a thread.

    A client without a complete request makes room for a new client: clients that send nothing cannot lock others out.
    """

    daemon_threads = True

    def __init__(self, listener: socket.socket, handler: type[_Handler]) -> None:
        super().__init__(listener.getsockname()[:2], handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self._lock = threading.Lock()
        # Deadlines by connection, in the order of arrival: of connections without, and with a complete request
        self._waiting: dict[socket.socket, float] = {}
        self._served: dict[socket.socket, float] = {}

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a client. If there are too many, close the oldest connection without a request."""
        with self._lock:
            if len(self._waiting) + len(self._served) >= _MAX_CLIENTS:
                oldest = next(iter(self._waiting), request)
                self._waiting.pop(oldest, None)
                _close(oldest)
            self._waiting[request] = time.monotonic() + _REQUEST_TIMEOUT_S
        super().process_request(request, client_address)

    def request_is_complete(self, request: socket.socket) -> None:
        """Note that a client has sent a complete request."""
        with self._lock:
            if self._waiting.pop(request, None):
                self._served[request] = time.monotonic() + _RESPONSE_TIMEOUT_S

    def shutdown_request(self, request: Any) -> None:
        """Close a connection whose response was sent, or whose client has left."""
        with self._lock:
            self._waiting.pop(request, None)
            self._served.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Close the connections whose time has passed. The server calls this several times per second."""
        now = time.monotonic()
        with self._lock:
            for connections in (self._waiting, self._served):
                for connection in [c for c, deadline in connections.items() if deadline < now]:
                    _close(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Do not log clients that disconnect early, as some probes do."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def _close(request: socket.socket) -> None:
    """Close a connection whose thread still uses the socket: the thread then reads the end of the stream."""
    with contextlib.suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    probes: ClassVar[Mapping[str, Callable[[], str]]]
    texts: ClassVar[Mapping[str, Callable[[], bytes]]]
    metrics: CollectorRegistry
    endpoint: FeedbackEndpoint

    def parse_request(self) -> bool:
        """Read the rest of the request."""
        complete = super().parse_request()
        if self.command != "POST":  # the body is still missing
            self.server.request_is_complete(self.connection)
        return complete

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == _METRICS:
            self._send(http.HTTPStatus.OK, *self._encode())
        elif path in self.probes:
            reason = self.probes[path]()
            status = http.HTTPStatus.SERVICE_UNAVAILABLE if reason else http.HTTPStatus.OK
            self._send(status, f"{reason or 'ok'}\n".encode())
        elif path in self.texts:
            self._send_text(self.texts[path])
        else:
            self._send_other()

    def do_POST(self) -> None:
        if self.path.partition("?")[0] != _FEEDBACK:
            self._send_other()
            return
        try:
            body = self.rfile.read(self.endpoint.body_size(self.headers))
            self.server.request_is_complete(self.connection)
            response = self.endpoint.respond(self.headers, body)
        except RequestError as error:
            response = error_response(error)
        self._send(*response, content_type="application/json")
        # A client that still sends its body would lose the response if the connection were closed now. The server
        # closes it in any case when the request has taken too long
        self.connection.shutdown(socket.SHUT_WR)
        while self.rfile.read(65536):
            pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Respond to a request that is no HTTP, or has another method."""
        self._send(http.HTTPStatus(code), f"{http.HTTPStatus(code).phrase}\n".encode())

    def _send_text(self, read: Callable[[], bytes]) -> None:
        try:
            self._send(http.HTTPStatus.OK, read())
        except OSError as error:
            self._send(http.HTTPStatus.SERVICE_UNAVAILABLE, f"There are no such metrics now: {error}\n".encode())

    def _send_other(self) -> None:
        """Respond to another path, or to another method of a path."""
        if self.path.partition("?")[0] in (*self.probes, *self.texts, _METRICS, _FEEDBACK):
            self._send(http.HTTPStatus.METHOD_NOT_ALLOWED, b"The path does not have this method.\n")
        else:
            paths = b"/livez, /readyz and /metrics, and POST /feedback"
            self._send(http.HTTPStatus.NOT_FOUND, b"Not found. The paths are " + paths + b".\n")

    def _encode(self) -> tuple[bytes, str]:
        """Encode the metrics in the format of the Accept header; as plain text if the header is not valid."""
        for accept in (self.headers.get("Accept", ""), ""):
            with contextlib.suppress(TypeError, ValueError):
                encode, content_type = choose_encoder(accept)
                return encode(self.metrics), content_type
        raise AssertionError("prometheus_client rejects an empty Accept header")

    def _send(self, status: http.HTTPStatus, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
        self.send_response_only(status)  # send_response also names the versions of this server and of Python
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing, because probes come every few seconds."""
