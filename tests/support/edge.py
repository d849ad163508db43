"""Start a real HAProxy as the edge, in front of stand-ins for TorchServe, the gateway and the operations port."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from tests.conftest import program
from tests.support.archives import plan
from tests.support.server import wait_until
from vinegrape_handler.contract import ERROR_HEADER
from vinegrape_loadtests.local.server import free_ports
from vinegrape_server.edge import configuration
from vinegrape_server.edge.access_log import AccessLog
from vinegrape_server.edge.process import EdgeProcess
from vinegrape_server.host.http import Address
from vinegrape_server.plan import Plan, Served

PATH = "/predictions/vinegrape"


@dataclass
class StandIn:
    """A stand-in for TorchServe. It responds with a JSON description of the request that it received.

    A request whose body is JSON controls it: `{"status": 503, "headers": {...}, "body": "...", "sleep": 0.1,
    "hang_up": true, "wait": true}`. A request with `wait` gets its response after `release`.

    Attributes:
        received: the descriptions of all requests.
        ready: what `/readyz` responds.
    """

    port: int = 0
    received: list[dict[str, Any]] = field(default_factory=list)
    ready: bool = True
    waiting: int = 0
    released: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def release(self) -> None:
        """Let all requests that wait, and later ones, get their responses."""
        self.released.set()


@contextlib.contextmanager
def standing_in(port: int) -> Iterator[StandIn]:
    stand_in = StandIn(port)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            if self.path == "/readyz":
                self.send(200 if stand_in.ready else 503, b"ok\n" if stand_in.ready else b"starting\n", {})
                return
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            wanted = {}
            with contextlib.suppress(ValueError):
                wanted = json.loads(body)
            description = {
                "method": self.command,
                "path": self.path,
                "headers": {name.lower(): value for name, value in self.headers.items()},
                "bytes": len(body),
                "sha256": hashlib.sha256(body).hexdigest(),
            }
            with stand_in.lock:
                stand_in.received.append(description)
                stand_in.waiting += bool(wanted.get("wait"))
            if wanted.get("wait"):
                stand_in.released.wait(30)
            time.sleep(wanted.get("sleep", 0))
            if wanted.get("hang_up"):
                self.close_connection = True
                return
            headers = {"content-type": "application/json", ERROR_HEADER: "none", **wanted.get("headers", {})}
            content = wanted.get("body", json.dumps(description)).encode()
            self.send(wanted.get("status", 200), content, {k: v for k, v in headers.items() if v})

        def do_POST(self) -> None:
            self.do_GET()

        def send(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
            with contextlib.suppress(OSError):
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

    with Server(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield stand_in
        finally:
            stand_in.release()
            server.shutdown()
            thread.join()


class Exchange(NamedTuple):
    """What a raw connection got: the bytes, and how it ended ("FIN", "RST", or "open" after the time limit)."""

    data: bytes
    end: str

    @property
    def status(self) -> int:
        return int(self.data.split()[1]) if self.data else 0


@dataclass
class Edge:
    """A running edge.

    Attributes:
        port: of its public address.
        torchserve: the stand-in behind it.
        lines: the lines of the access log so far.
    """

    plan: Plan
    haproxy: Path
    port: int
    ports: dict[str, int]
    folder: Path
    process: EdgeProcess
    torchserve: StandIn
    operations: StandIn
    log: AccessLog
    output: io.StringIO
    client: httpx.Client

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.getvalue().splitlines()]

    def post(self, content: Any = b"", path: str = PATH, **options: Any) -> httpx.Response:
        """Send a POST request; JSON content controls the stand-in."""
        if isinstance(content, dict):
            content = json.dumps(content).encode()
        return self.client.post(path, content=content, **options)

    def inner(self) -> Address:
        return configuration.inner(self.folder)

    def connect(self, source: str = "127.0.0.1") -> socket.socket:
        """Open a connection from an address of this machine, all of which begin with 127."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=10, source_address=(source, 0))

    def refuses_connections(self) -> bool:
        """Return whether the public port accepts no connection."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) != 0

    def exchange(self, data: bytes, half_close: bool = False, wait_s: float = 10) -> Exchange:
        """Send bytes over a new connection and read until it ends."""
        with self.connect() as connection:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(data)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            connection.settimeout(wait_s)
            return read_to_end(connection)

    def line_of(self, response: httpx.Response) -> dict[str, Any]:
        """Wait for the access log's only line of a request, and return it."""

        def lines() -> list[dict[str, Any]]:
            return [line for line in self.lines if line["id"] == response.headers["x-request-id"]]

        wait_until(lines)
        (line,) = lines()
        return line

    def wait_for_lines(self, number: int) -> list[dict[str, Any]]:
        """Wait until the access log has this number of lines, and return them."""
        wait_until(lambda: len(self.lines) >= number, seconds=20)
        return self.lines[:number]

    def counts(self) -> dict[tuple[str, str, str], float]:
        """The number of responses by transport, status and error."""
        return {
            (sample.labels["transport"], sample.labels["status"], sample.labels["error"]): sample.value
            for metric in self.log.collect()
            for sample in metric.samples
            if sample.name == "vinegrape_responses_total" and sample.value
        }


def read_to_end(connection: socket.socket) -> Exchange:
    data = b""
    try:
        while piece := connection.recv(1 << 16):
            data += piece
    except ConnectionResetError:
        return Exchange(data, "RST")
    except TimeoutError:
        return Exchange(data, "open")
    return Exchange(data, "FIN")


@contextlib.contextmanager
def running_edge(folder: Path, tls: bool = False, has_page: bool = True, **settings: Any) -> Iterator[Edge]:
    """Start an edge with one worker behind it, and end it with the block.

    Args:
        folder: a folder for its files.
        tls: whether the client uses TLS, without checking the certificate.
        has_page: whether the handler of the archive sends the web page.
        settings: of `vinegrape serve`.
    """
    haproxy = Path(program("haproxy", "haproxy"))
    ports = free_ports()
    chosen = plan(edge=True, workers=1, **{"access_log": False, **ports, **settings})
    chosen = dataclasses.replace(chosen, archive=dataclasses.replace(chosen.archive, has_page=has_page))
    configuration.prepare(chosen, haproxy, folder)
    output = io.StringIO()
    log = AccessLog(output)
    scheme = "https" if tls else "http"
    with (
        standing_in(ports["rest_port"]) as torchserve,
        standing_in(ports["operations_port"]) as operations,
        EdgeProcess(Served(chosen), haproxy, folder, log) as process,
        httpx.Client(base_url=f"{scheme}://127.0.0.1:{ports['edge_port']}", timeout=30, verify=False) as client,
    ):
        wait_until(lambda: configuration.inner(folder) and _listens(folder, process))
        process.open()
        yield Edge(
            chosen, haproxy, ports["edge_port"], ports, folder, process, torchserve, operations, log, output, client
        )


def _listens(folder: Path, process: EdgeProcess) -> bool:
    process.check()
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(configuration.inner(folder).host) == 0
