"""A stand-in for TorchServe's frontend: starts a worker process and exchanges messages with it."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tests.support.archives import plan
from vinegrape_server.torchserve import configuration
from vinegrape_server.worker import main


def integer(number: int) -> bytes:
    return struct.pack("!i", number)


def sized(data: bytes) -> bytes:
    """The length of some bytes, then the bytes."""
    return integer(len(data)) + data


def load_message(folder: Path, handler: str = "entry.py", gpu: int = -1) -> bytes:
    """The request to load the model of a folder."""
    model = sized(b"vinegrape") + sized(str(folder).encode()) + integer(8) + sized(handler.encode())
    return b"L" + model + integer(gpu) + sized(b"") + b"\1"


def wire_request(
    id_: bytes, inputs: Mapping[str, tuple[str, bytes]], headers: Mapping[str, str] | None = None
) -> bytes:
    """One request of a batch; each input has a content type and bytes."""
    parts = [sized(id_)]
    parts += [sized(name.encode()) + sized(value.encode()) for name, value in (headers or {}).items()]
    parts += [integer(-1)]
    parts += [sized(name.encode()) + sized(kind.encode()) + sized(data) for name, (kind, data) in inputs.items()]
    return b"".join([*parts, integer(-1)])


def batch(*requests: bytes) -> bytes:
    """The message with a batch of requests."""
    return b"".join([b"I", *requests, integer(-1)])


def body_batch(*bodies: bytes) -> bytes:
    """The message with a batch of raw bodies. The id of each request is its index."""
    return batch(
        *(wire_request(str(index).encode(), {"body": ("image/png", body)}) for index, body in enumerate(bodies))
    )


class Response(NamedTuple):
    """A worker's response to one request."""

    id: bytes
    content_type: bytes
    status: int
    phrase: bytes
    headers: dict[bytes, bytes]
    body: bytes


class Frontend:
    """The connection to one worker."""

    def __init__(self, process: subprocess.Popen[str], connection: socket.socket) -> None:
        self.process = process
        self.connection = connection
        self._received = connection.makefile("rb")

    def send(self, message: bytes) -> tuple[int, str, list[Response]]:
        """Send a message; return the code, the text and the responses of the worker."""
        self.connection.sendall(message)
        code, text = self._integer(), self._sized().decode()
        responses = []
        while (length := self._integer()) != -1:
            head = (self._received.read(length), self._sized(), self._integer(), self._sized())
            headers = {self._sized(): self._sized() for _ in range(self._integer())}
            responses.append(Response(*head, headers, self._sized()))
        return code, text, responses

    def end(self) -> tuple[int, str]:
        """Disconnect; return the worker's exit code and its standard error."""
        self._received.close()
        self.connection.close()
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors

    def _integer(self) -> int:
        (number,) = struct.unpack("!i", self._received.read(4))
        return int(number)

    def _sized(self) -> bytes:
        return self._received.read(self._integer())


@contextlib.contextmanager
def connected(folder: Path, **variables: str) -> Iterator[Frontend]:
    """Start a worker process as TorchServe does, with additional environment variables, and connect to it."""
    socket_name = folder / ".ts.sock.9000"
    process = subprocess.Popen(
        [sys.executable, main.__file__, "--sock-type", "unix", "--sock-name", socket_name, "--metrics-config", "x"],
        env={**configuration.environment(plan(), folder), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"[PID]{process.pid}\n"
            assert process.stdout.readline() == "Torch worker started.\n"
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(socket_name))
                yield Frontend(process, connection)
        finally:
            process.kill()
