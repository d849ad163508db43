"""The messages between TorchServe's frontend and a worker.

The wire format is that of TorchServe 0.12, `ts/protocol/otf_message_handler.py`: integers have 4 bytes and are
big-endian; the length of a text or a body comes before it; a length of -1 ends a list.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

_LOAD, _PREDICT = b"L", b"I"
_END_OF_LIST = -1
_INTEGER = struct.Struct("!i")
_BUFFER_BYTES = 1 << 17  # holds most messages

# TorchServe accepts forms with millions of fields, which would take gigabytes here
_MAX_INPUTS = 64


class LoadRequest(NamedTuple):
    """The request to load a model.

    Attributes:
        folder: the folder of the unpacked archive.
        batch_size: maximum requests in one batch.
        handler: the file in the folder that defines the handler's class.
        gpu: number of the GPU to use; None for the CPU.
    """

    folder: str
    batch_size: int
    handler: str
    gpu: int | None


class WireRequest(NamedTuple):
    """One request of a batch.

    Attributes:
        id: identifies the request; its response carries the same id.
        headers: the request's headers by name, with upper and lower case as sent. Under the name of each input stands a
            dictionary of that input's headers.
        inputs: the body under the name `body`; form fields under their own names. The value is a list if several fields
            have the same name. Only the first fields of a form are kept, see `_MAX_INPUTS`.
    """

    id: bytes
    headers: dict[str, Any]
    inputs: dict[str, bytes | list[bytes]]


class WireResponse(NamedTuple):
    """The response to one request. If `content_type` is empty, the frontend chooses one."""

    id: bytes
    body: bytes
    status: int
    phrase: str = ""
    content_type: str = ""
    headers: Mapping[str, str] = MappingProxyType({})


class Reader:
    """Reads the frontend's messages through one buffer, which grows to the size of the largest body.

    Every method raises a ConnectionError if the frontend has disconnected, and a ValueError if it sent another message.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._begin = self._end = 0  # the part of the buffer that holds received and unread bytes

    def load_request(self) -> LoadRequest:
        """Read the first message, which names the model."""
        self._expect(_LOAD)
        self._text()  # the model's name
        folder = self._text()
        batch_size = self._integer()
        handler = self._text()
        gpu = self._integer()
        self._text()  # envelope; our archives use none
        self._take(1)  # whether Pillow limits the number of pixels; the handler has its own limit
        return LoadRequest(folder, batch_size, handler, gpu if gpu >= 0 else None)

    def batch(self) -> list[WireRequest]:
        """Read a batch of requests. Every message after the first is one."""
        self._expect(_PREDICT)
        requests = []
        while (length := self._integer()) != _END_OF_LIST:
            requests.append(self._request(length))
        return requests

    def _request(self, id_length: int) -> WireRequest:
        id_ = bytes(self._take(id_length))
        request_headers, headers = {}, {}
        inputs: dict[str, bytes | list[bytes]] = {}
        number = 0
        while (length := self._integer()) != _END_OF_LIST:
            name = str(self._take(length), "utf-8")
            request_headers[name] = self._text()
        while (length := self._integer()) != _END_OF_LIST:
            name = str(self._take(length), "utf-8")
            content_type = self._text()
            data = self._take(self._integer())
            number += 1
            if number <= _MAX_INPUTS:
                headers[name] = {"content-type": content_type}
                _add_input(inputs, name, bytes(data))
        return WireRequest(id_, headers | request_headers, inputs)

    def _expect(self, command: bytes) -> None:
        received = bytes(self._take(1))
        if received != command:
            raise ValueError(f"TorchServe sent the command {received!r} instead of {command!r}.")

    def _integer(self) -> int:
        number: int = _INTEGER.unpack(self._take(4))[0]
        return number

    def _text(self) -> str:
        return str(self._take(self._integer()), "utf-8")

    def _take(self, size: int) -> memoryview:
        """Return a view of the next `size` bytes. It is valid until the next call."""
        if size > self._end - self._begin:
            self._fill(size)
        begin = self._begin
        self._begin = begin + size
        return self._buffer[begin : self._begin]

    def _fill(self, size: int) -> None:
        """Move the unread bytes to the start of the buffer, and receive until there are at least `size` bytes."""
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


def _add_input(inputs: dict[str, bytes | list[bytes]], name: str, data: bytes) -> None:
    """Add an input. Inputs with the same name become a list."""
    earlier = inputs.get(name)
    if earlier is None:
        inputs[name] = data
    else:
        inputs[name] = [*earlier, data] if isinstance(earlier, list) else [earlier, data]


def encode(code: int, message: str, responses: Iterable[WireResponse] = ()) -> bytes:
    """Encode the response to one message of the frontend.

    Args:
        code: 200, or the HTTP status of all requests of the batch.
        message: a text for the frontend; clients receive it if `code` is not 200.
        responses: the responses of a batch; none if the message was a load request.
    """
    integer = _INTEGER.pack
    pieces = [integer(code), *_sized(message.encode())]
    for response in responses:
        pieces += _sized(response.id)
        pieces += _sized(response.content_type.encode())
        pieces.append(integer(response.status))
        pieces += _sized(response.phrase.encode())
        pieces.append(integer(len(response.headers)))
        for name, value in response.headers.items():
            pieces += _sized(name.encode())
            pieces += _sized(value.encode())
        pieces += _sized(response.body)
    pieces.append(integer(_END_OF_LIST))
    return b"".join(pieces)


def _sized(data: bytes) -> tuple[bytes, bytes]:
    """Return the encoded length of some bytes, and the bytes."""
    return _INTEGER.pack(len(data)), data
