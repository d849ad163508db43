"""The server that the faults are tried on, with its processes and its output."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import psutil
from prometheus_client.parser import text_string_to_metric_families

from vinegrape_loadtests.chaos.good_clients import Endpoint
from vinegrape_loadtests.local.server import Server, free_ports, starting
from vinegrape_server.host.http import Address, get
from vinegrape_server.host.processes import find_workers, is_running
from vinegrape_server.settings import LOOPBACK, ServeSettings

JAVA, WORKER, GATEWAY, EDGE = "Java", "worker", "gateway", "edge"
_POLL_S = 0.02


@dataclass(frozen=True)
class Target:
    """One running server.

    Attributes:
        server: its process and its ports.
        edge: whether it has the edge.
        output: the files of its standard output and standard error.
    """

    server: Server
    edge: bool
    output: tuple[Path, Path]

    @property
    def rest(self) -> tuple[str, int]:
        """Host and port that clients send REST requests to."""
        return LOOPBACK, self.server.ports["edge_port" if self.edge else "rest_port"]

    @property
    def grpc(self) -> tuple[str, int]:
        """Host and port that clients send gRPC requests to."""
        return LOOPBACK, self.server.ports["edge_port" if self.edge else "grpc_port"]

    @property
    def endpoint(self) -> Endpoint:
        """The ports that clients use."""
        return Endpoint(LOOPBACK, self.rest[1], self.grpc[1], self.server.ports["operations_port"])

    @property
    def pid(self) -> int:
        """Process id of `vinegrape serve`."""
        return self.server.process.pid

    def is_running(self) -> bool:
        """Return whether `vinegrape serve` runs."""
        return self.server.process.poll() is None

    def probe(self, path: str = "/readyz", timeout_s: float = 1) -> str:
        """Request a probe; return "ok", or the reason why it is not."""
        try:
            response = get(Address(LOOPBACK, self.server.ports["operations_port"]), path, timeout_s)
        except OSError as error:
            return f"no response: {type(error).__name__}"
        return "ok" if response.status == HTTPStatus.OK else response.body.decode().strip()

    def metrics(self) -> dict[tuple[str, ...], float]:
        """Return every metric, by its name and the values of its labels in the order of the labels' names."""
        response = get(Address(LOOPBACK, self.server.ports["operations_port"]), "/metrics", timeout_s=10)
        return {
            (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(response.body.decode())
            for sample in family.samples
        }

    def metric(self, name: str) -> float:
        """Return the sum of a metric over its labels; 0 if there is none."""
        return sum(value for key, value in self.metrics().items() if key[0] == name)

    def processes(self, kind: str) -> list[psutil.Process]:
        """Return the running processes of a kind: `JAVA`, `WORKER`, `GATEWAY` or `EDGE`."""
        children = _children(self.pid)
        if kind == WORKER:
            return [w for java in children if _kind(java) == JAVA for w in find_workers(java) if is_running(w.pid)]
        return [child for child in children if _kind(child) == kind and is_running(child.pid)]

    def family(self) -> list[psutil.Process]:
        """Return `vinegrape serve` and all its descendants."""
        process = psutil.Process(self.pid)
        return [process, *process.children(recursive=True)]

    def resident_mib(self) -> dict[str, float]:
        """Return the resident memory in MiB by kind; the largest worker's for the workers."""
        memory = {kind: [_rss(process) for process in self.processes(kind)] for kind in (JAVA, WORKER, GATEWAY, EDGE)}
        return {kind: max(values) / 2**20 for kind, values in memory.items() if values}

    def log_lines(self) -> int:
        """Return how many lines the server has written to standard error, which has no access log."""
        return self.output[1].read_bytes().count(b"\n")

    def log_tail(self, lines: int = 5) -> str:
        """Return the last lines of standard error."""
        return "\n".join(self.output[1].read_text(errors="replace").splitlines()[-lines:])

    def wait_for_exit(self, timeout_s: float) -> int | None:
        """Wait for the end of `vinegrape serve`; return its exit code, or None if it still runs."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and self.is_running():
            time.sleep(_POLL_S)
        return self.server.process.poll()


@contextlib.contextmanager
def start_target(
    archive: Path,
    edge: bool,
    *options: str,
    ports: Mapping[str, int] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Target]:
    """Start `vinegrape serve` on free ports, without waiting for it, and end it with the block.

    Args:
        archive: the archive to serve.
        edge: whether to start the edge.
        options: further options of `vinegrape serve`.
        ports: ports by the names of their settings; see `public_ports`, if None.
        environment: all its environment variables; those of this process if None.
    """
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        output = (Path(folder) / "stdout", Path(folder) / "stderr")
        with output[0].open("w") as stdout, output[1].open("w") as stderr:
            all_options = ["--archive", str(archive), "--edge" if edge else "--no-edge", *options]
            with starting(
                *all_options, ports=ports or public_ports(), environment=environment, stdout=stdout, stderr=stderr
            ) as server:
                yield Target(server, edge, output)


def public_ports() -> dict[str, int]:
    """Return free ports by the names of their settings, without those that the server only opens if they are set."""
    return {name: port for name, port in free_ports().items() if getattr(ServeSettings(edge=True), name)}


@contextlib.contextmanager
def stopped(processes: list[psutil.Process]) -> Iterator[None]:
    """Stop processes (SIGSTOP), and continue those that still exist at the end of the block."""
    try:
        for process in processes:
            process.suspend()
        yield
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


def error_type(body: bytes) -> str:
    """Return the type of an error's body, such as "overloaded"; empty if it is no error of ours."""
    try:
        return str(json.loads(body)["error"]["type"])
    except (ValueError, LookupError, TypeError):
        return ""


def _children(pid: int) -> list[psutil.Process]:
    try:
        children: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return children


def _kind(process: psutil.Process) -> str:
    try:
        name, arguments = process.name(), process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""
    if name == "java":
        return JAVA
    if name == "haproxy":
        return EDGE
    return GATEWAY if any("vinegrape_server.gateway" in a or "/gateway/" in a for a in arguments) else ""


def _rss(process: psutil.Process) -> int:
    try:
        resident: int = process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0
    return resident
