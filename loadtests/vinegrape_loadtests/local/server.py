"""A server of a measurement's own: `vinegrape serve` on free ports, ended with the block."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import click

from vinegrape_server.host.http import get
from vinegrape_server.settings import LOOPBACK, ServeSettings

_START_TIMEOUT_S = 120
_STOP_TIMEOUT_S = 60
_POLL_S = 0.05


@dataclass(frozen=True)
class Server:
    """One server on this machine.

    Attributes:
        process: of `vinegrape serve`.
        ports: by the names of their settings.
    """

    process: subprocess.Popen[bytes]
    ports: dict[str, int]

    def wait_until_ready(self) -> None:
        """Return once every worker has answered right.

        Raises:
            ClickException: it ended, or took too long.
        """
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError):
                if get(LOOPBACK, self.ports["operations_port"], "/readyz", timeout_s=5).status == HTTPStatus.OK:
                    return
            time.sleep(_POLL_S)
        raise click.ClickException("The server did not start; what it said stands above.")


@contextlib.contextmanager
def starting(*options: str, stdout: int | None = None) -> Iterator[Server]:
    """Start `vinegrape serve`, with this environment's settings and further options."""
    ports = free_ports()
    named = [part for name, port in ports.items() for part in (f"--{name.replace('_', '-')}", str(port))]
    command = [str(Path(sys.executable).with_name("vinegrape")), "serve", *named, *options]
    process = subprocess.Popen(command, stdout=stdout)  # noqa: S603
    try:
        yield Server(process, ports)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_STOP_TIMEOUT_S)


@contextlib.contextmanager
def serving(*options: str, stdout: int | None = None) -> Iterator[Server]:
    """The same, once it is ready."""
    with starting(*options, stdout=stdout) as server:
        server.wait_until_ready()
        yield server


@contextlib.contextmanager
def unpacked(archive: Path) -> Iterator[Path]:
    """The archive's content in a folder."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(archive) as packed:
        packed.extractall(folder)
        yield Path(folder)


def free_ports() -> dict[str, int]:
    """A port that nobody listens on for each that a server needs."""
    with contextlib.ExitStack() as stack:
        sockets = {name: stack.enter_context(socket.socket()) for name in ServeSettings().ports}
        for each in sockets.values():
            each.bind((LOOPBACK, 0))
        return {name: each.getsockname()[1] for name, each in sockets.items()}
