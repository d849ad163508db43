"""What TorchServe's frontend and a worker say to each other.

The wire format of TorchServe 0.12's `ts/protocol/otf_message_handler.py`: integers are big-endian and of 4 bytes; a
text or a body follows its length; a list ends where a length of -1 stands.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from typing import Any, NamedTuple

_LOAD, _PREDICT = b"L", b"I"
_END = -1
_INTEGER = struct.Struct("!i")
_BUFFER_BYTES = 1 << 17  # most requests at once


class Model(NamedTuple):
    """What to load.

    Attributes:
        folder: where the archive was unpacked.
        handler: the file in it that has the handler's class.
        gpu: to compute on; None on CPU.
    """

    folder: str
    handler: str
    gpu: int | None


class Request(NamedTuple):
    """One request of a batch.

    Attributes:
        id: to be given back with its answer.
        headers: by name in the case in which they came, and each input's as a dictionary by the input's name.
        inputs: the body as `body`, form fields and gRPC inputs by name.
    """

    id: bytes
    headers: dict[str, Any]
    inputs: dict[str, bytes]


class Answer(NamedTuple):
    """The answer of one request; a content type that is empty is the frontend's to choose."""

    id: bytes
    body: bytes
    status: int
    phrase: str = ""
    content_type: str = ""


class Reader:
    """Reads the frontend's messages through one buffer, as large as the largest body so far.

    Raises:
        ConnectionError: from every method, once the frontend has disconnected.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._begin = self._end = 0  # of what is in the buffer and not yet read

    def model(self) -> Model:
        """The first message."""
        self._expect(_LOAD)
        self._text()  # the model's name
        folder = self._text()
        self._integer()  # the size of batches
        handler = self._text()
        gpu = self._integer()
        self._text()  # an envelope, which no archive of ours asks for
        self._take(1)  # whether Pillow keeps its limit of pixels; the handler has its own
        return Model(folder, handler, gpu if gpu >= 0 else None)

    def batch(self) -> list[Request]:
        """Each further message."""
        self._expect(_PREDICT)
        requests = []
        while (length := self._integer()) != _END:
            requests.append(self._request(length))
        return requests

    def _request(self, id_length: int) -> Request:
        id_ = bytes(self._take(id_length))
        of_request, headers, inputs = {}, {}, {}
        while (length := self._integer()) != _END:
            name = str(self._take(length), "utf-8")
            of_request[name] = self._text()
        while (length := self._integer()) != _END:
            name = str(self._take(length), "utf-8")
            headers[name] = {"content-type": self._text()}
            inputs[name] = bytes(self._take(self._integer()))
        return Request(id_, headers | of_request, inputs)

    def _expect(self, command: bytes) -> None:
        said = bytes(self._take(1))
        if said != command:
            raise ValueError(f"TorchServe sent the command {said!r} where {command!r} was expected.")

    def _integer(self) -> int:
        number: int = _INTEGER.unpack(self._take(4))[0]
        return number

    def _text(self) -> str:
        return str(self._take(self._integer()), "utf-8")

    def _take(self, size: int) -> memoryview:
        """The next bytes, until the next call."""
        if size > self._end - self._begin:
            self._fill(size)
        begin = self._begin
        self._begin = begin + size
        return self._buffer[begin : self._begin]

    def _fill(self, size: int) -> None:
        """Have at least so many bytes in the buffer, from its beginning."""
        rest = self._buffer[self._begin : self._end]
        if size > len(self._buffer):
            self._buffer = memoryview(bytearray(size + _BUFFER_BYTES))
        self._buffer[: len(rest)] = rest
        self._begin, self._end = 0, len(rest)
        while self._end < size:
            received = self._connection.recv_into(self._buffer[self._end :])
            if not received:
                raise ConnectionError("The frontend has disconnected.")
            self._end += received


def encode(code: int, message: str, answers: Iterable[Answer] = ()) -> bytes:
    """What the frontend is answered.

    Args:
        code: 200, or the HTTP status that all requests of the batch get, with the message.
        message: in words.
        answers: of a batch; none where a model was to be loaded.
    """
    integer = _INTEGER.pack
    pieces = [integer(code), *_sized(message.encode())]
    for answer in answers:
        pieces += _sized(answer.id)
        pieces += _sized(answer.content_type.encode())
        pieces.append(integer(answer.status))
        pieces += _sized(answer.phrase.encode())
        pieces.append(integer(0))  # headers
        pieces += _sized(answer.body)
    pieces.append(integer(_END))
    return b"".join(pieces)


def _sized(data: bytes) -> tuple[bytes, bytes]:
    return _INTEGER.pack(len(data)), data
