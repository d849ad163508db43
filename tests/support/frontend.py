"""TorchServe's frontend, as one of its workers meets it."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tests.server.torchserve.test_configuration import plan
from vinegrape_server.torchserve import configuration
from vinegrape_server.worker import main


def integer(number: int) -> bytes:
    return struct.pack("!i", number)


def sized(data: bytes) -> bytes:
    return integer(len(data)) + data


def load_message(folder: Path, handler="entry.py", gpu=-1) -> bytes:
    model = sized(b"vinegrape") + sized(str(folder).encode()) + integer(8) + sized(handler.encode())
    return b"L" + model + integer(gpu) + sized(b"") + b"\1"


def request(id_: bytes, inputs: Mapping[str, tuple[str, bytes]], headers: Mapping[str, str] | None = None) -> bytes:
    parts = [sized(id_)]
    parts += [sized(name.encode()) + sized(value.encode()) for name, value in (headers or {}).items()]
    parts += [integer(-1)]
    parts += [sized(name.encode()) + sized(kind.encode()) + sized(data) for name, (kind, data) in inputs.items()]
    return b"".join([*parts, integer(-1)])


def batch(*requests: bytes) -> bytes:
    return b"".join([b"I", *requests, integer(-1)])


def pictures(*bodies: bytes) -> bytes:
    """A batch of raw bodies, whose ids are their places."""
    return batch(*(request(str(place).encode(), {"body": ("image/png", each)}) for place, each in enumerate(bodies)))


class Answer(NamedTuple):
    id: bytes
    content_type: bytes
    status: int
    phrase: bytes
    body: bytes


class Frontend:
    """One worker's."""

    def __init__(self, process: subprocess.Popen[str], connection: socket.socket) -> None:
        self.process = process
        self.connection = connection
        self._answers = connection.makefile("rb")

    def ask(self, message: bytes) -> tuple[int, str, list[Answer]]:
        """The code, the message and the answers."""
        self.connection.sendall(message)
        code, said = self._integer(), self._sized().decode()
        answers = []
        while (length := self._integer()) != -1:
            head = (self._answers.read(length), self._sized(), self._integer(), self._sized())
            assert self._integer() == 0  # headers
            answers.append(Answer(*head, self._sized()))
        return code, said, answers

    def end(self) -> tuple[int, str]:
        """Disconnect; the worker's exit code, and what it has written to standard error."""
        self._answers.close()
        self.connection.close()
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors

    def _integer(self) -> int:
        (number,) = struct.unpack("!i", self._answers.read(4))
        return number

    def _sized(self) -> bytes:
        return self._answers.read(self._integer())


@contextlib.contextmanager
def connected(folder: Path, **environment: str) -> Iterator[Frontend]:
    """A worker's process, started and connected to as TorchServe does it; more is in its environment, if given."""
    socket_name = folder / ".ts.sock.9000"
    process = subprocess.Popen(
        [sys.executable, main.__file__, "--sock-type", "unix", "--sock-name", socket_name, "--metrics-config", "x"],
        env={**configuration.environment(plan(), folder), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == f"[PID]{process.pid}\n"
        assert process.stdout.readline() == "Torch worker started.\n"
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(socket_name))
            yield Frontend(process, connection)
    finally:
        process.kill()
        process.wait()
