"""Start `vinegrape serve` on free ports, with or without its edge, and stop it at the end of a block."""

from __future__ import annotations

import contextlib
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any

import click
import psutil

from vinegrape_loadtests.client import PREDICTIONS_PATH
from vinegrape_server.host.http import Address, get
from vinegrape_server.settings import LOOPBACK, ServeSettings

_START_TIMEOUT_S = 120
_STOP_TIMEOUT_S = 60
_POLL_S = 0.05
# Linux gives ports from 32768 on to outgoing connections: a free one of them may be taken a moment later
_PORTS = range(16384, 32768)


@dataclass(frozen=True)
class Server:
    """One server on this machine.

    Attributes:
        process: `vinegrape serve`.
        ports: ports by the names of their settings, such as `rest_port`.
        edge: whether the edge runs: then REST and gRPC share the port of the edge.
    """

    process: subprocess.Popen[Any]
    ports: dict[str, int]
    edge: bool = False

    @property
    def rest_url(self) -> str:
        """Scheme, host and port of REST."""
        return f"http://{LOOPBACK}:{self.ports['edge_port' if self.edge else 'rest_port']}"

    @property
    def predictions_url(self) -> str:
        """URL to post images to."""
        return self.rest_url + PREDICTIONS_PATH

    @property
    def _operations(self) -> Address:
        return Address(LOOPBACK, self.ports["operations_port"])

    @property
    def grpc_address(self) -> str:
        """Host and port of gRPC."""
        return f"{LOOPBACK}:{self.ports['edge_port' if self.edge else 'grpc_port']}"

    def wait_until_ready(self, timeout_s: float = _START_TIMEOUT_S) -> None:
        """Return once every worker has passed its self-check.

        Raises:
            ClickException: the server has exited, or is not ready in time.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError):
                if get(self._operations, "/readyz", timeout_s=5).status == HTTPStatus.OK:
                    return
            time.sleep(_POLL_S)
        code = self.process.poll()
        problem = f"is not ready after {timeout_s:g} s" if code is None else f"exited with code {code}"
        raise click.ClickException(f"The server {problem}; see its output.")


@contextlib.contextmanager
def starting(
    *options: str,
    ports: Mapping[str, int] | None = None,
    environment: Mapping[str, str] | None = None,
    stdout: int | IO[Any] | None = None,
    stderr: int | IO[Any] | None = None,
) -> Iterator[Server]:
    """Start `vinegrape serve`, and stop it at the end of the block, also after an error.

    Args:
        options: options of `vinegrape serve`. The edge runs only if `--edge` is among them.
        ports: ports by the names of their settings; free ones if None.
        environment: environment variables of the server; those of this process if None.
        stdout: as for `subprocess.Popen`.
        stderr: as for `subprocess.Popen`.
    """
    ports = dict(ports or free_ports())
    port_options = [part for name, port in ports.items() for part in (f"--{name.replace('_', '-')}", str(port))]
    edge = "--edge" in options
    # Without it the variable VINEGRAPE_EDGE would decide, and the addresses of `Server` could be wrong
    edge_options = () if edge else ("--no-edge",)
    command = [str(Path(sys.executable).with_name("vinegrape")), "serve", *port_options, *edge_options, *options]
    with running(command, env=environment, stdout=stdout, stderr=stderr) as process:
        yield Server(process, ports, edge)


@contextlib.contextmanager
def serving(*options: str, **more: Any) -> Iterator[Server]:
    """Start `vinegrape serve` as `starting` does, and wait until it is ready.

    Raises:
        ClickException: the server exits, or is not ready in time.
    """
    with starting(*options, **more) as server:
        server.wait_until_ready()
        yield server


@contextlib.contextmanager
def running(command: list[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Run a command; at the end of the block, stop it and every process that it started, also after an error.

    The command gets SIGTERM and up to 60 s. Then the command and its descendants that still run are killed.

    Args:
        command: program and arguments.
        options: options of `subprocess.Popen`.
    """
    process = subprocess.Popen(command, **options)  # noqa: S603
    try:
        yield process
    finally:
        descendants = _descendants(process.pid)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_TIMEOUT_S)
        for survivor in {*descendants, *_descendants(process.pid)}:
            with contextlib.suppress(psutil.NoSuchProcess):
                survivor.kill()
        process.kill()
        process.wait()


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        descendants: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return descendants


@contextlib.contextmanager
def unpacked(archive: Path) -> Iterator[Path]:
    """Unpack an archive to a temporary folder."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(archive) as packed:
        packed.extractall(folder)
        yield Path(folder)


def free_ports() -> dict[str, int]:
    """Return a free port for each port that the server opens by default or with the edge, by the setting's name."""
    names = [name for name, port in ServeSettings(edge=True).ports.items() if port]
    return dict(zip(names, find_ports(len(names)), strict=True))


def free_port() -> int:
    """Return one free port."""
    (port,) = find_ports(1)
    return port


def find_ports(count: int) -> list[int]:
    """Return different free ports, chosen at random."""
    ports: list[int] = []
    for port in secrets.SystemRandom().sample(_PORTS, len(_PORTS)):
        if len(ports) == count:
            break
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((LOOPBACK, port))
            ports.append(port)
    return ports
