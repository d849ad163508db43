"""Commands to a running HAProxy, through its admin socket. HAProxy's management guide describes them."""

from __future__ import annotations

import socket
from pathlib import Path

from vinegrape_server.edge import configuration

_TIMEOUT_S = 2


def run_command(folder: Path, command: str) -> str:
    """Run a command such as `show info`, and return its output.

    Args:
        folder: the folder of the instance.
        command: one line.

    Raises:
        OSError: HAProxy does not respond.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_TIMEOUT_S)
        connection.connect(configuration.admin(folder).host)
        connection.sendall(f"{command}\n".encode())
        parts = []
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts).decode(errors="replace")


def information(folder: Path) -> dict[str, str]:
    """Return what `show info` reports, by name, such as "Pid" and "CurrConns".

    Raises:
        OSError: HAProxy does not respond.
    """
    lines = run_command(folder, "show info").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
