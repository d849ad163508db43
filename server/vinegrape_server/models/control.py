"""The control socket: `vinegrape models` sends its commands to a running server through it.

It is a Unix socket in the private folder of the instance, so only the user of the server can reach it. A command and
each line of its response are one line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vinegrape_handler.errors import VinegrapeError
from vinegrape_server.errors import ServeError
from vinegrape_server.host.instance import instance_folders, temporary_folder
from vinegrape_server.host.threads import serving_in_thread
from vinegrape_server.models.swap import Models

_MAX_LINE = 1 << 16
_TIMEOUT_S = 600


@contextlib.contextmanager
def serve_control(folder: Path, operations_port: int, models: Models) -> Iterator[None]:
    """Execute commands while the block runs.

    Args:
        folder: the folder of the instance.
        operations_port: the port by which a user names this server.
        models: the versions of the model.
    """

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            # A client may leave before its command, or before the response
            with contextlib.suppress(OSError, ValueError):
                self._respond(json.loads(self.rfile.readline(_MAX_LINE)))

        def _respond(self, command: Mapping[str, Any]) -> None:
            try:
                match command["command"]:
                    case "swap":
                        models.swap(Path(command["archive"]), self._report)
                    case "rollback":
                        models.roll_back(self._report)
                self._write({"versions": models.versions()})
            except VinegrapeError as error:
                self._write({"error": str(error)})

        def _report(self, step: str) -> None:
            # A client that has left does not end the swap
            with contextlib.suppress(OSError):
                self._write({"step": step})

        def _write(self, line: Mapping[str, Any]) -> None:
            self.wfile.write(json.dumps(line).encode() + b"\n")

    with socketserver.ThreadingUnixStreamServer(str(folder / _name(operations_port)), Handler) as server:
        server.daemon_threads = True
        with serving_in_thread(server):
            yield


def send_command(operations_port: int, command: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Send a command to a running server, and yield the lines of its response: {"step": ...}, {"versions": ...}.

    Args:
        operations_port: of the server.
        command: {"command": "list"}, {"command": "swap", "archive": PATH} or {"command": "rollback"}.

    Raises:
        ServeError: there is no such server, or it could not execute the command.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_TIMEOUT_S)
        _connect(connection, operations_port)
        connection.sendall(json.dumps(command).encode() + b"\n")
        with connection.makefile("rb") as lines:
            for line in lines:
                answer = json.loads(line)
                if "error" in answer:
                    raise ServeError(answer["error"])
                yield answer
                if "versions" in answer:
                    return
    raise ServeError("The server has ended during the command.")


def _connect(connection: socket.socket, operations_port: int) -> None:
    parent = temporary_folder()
    for folder in instance_folders(parent):
        with contextlib.suppress(OSError):
            connection.connect(str(folder / _name(operations_port)))
            return
    raise ServeError(
        f"No server of this user with the operations port {operations_port} has its folder in {parent}. Set "
        "--operations-port, and TMPDIR as for the server; in a container, run this command inside it."
    )


def _name(operations_port: int) -> str:
    return f"control-{operations_port}.sock"
