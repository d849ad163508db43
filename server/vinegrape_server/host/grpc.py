"""A gRPC call without the gRPC library, which would take 15 MB of memory: it finds out whether a server responds."""

from __future__ import annotations

import socket
import struct

from vinegrape_server.host.http import Address, reachable

# Frames of HTTP/2 (RFC 9113, section 6): length, type, flags, stream; then the payload
_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_END_STREAM, _END_HEADERS = 1, 4
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_FRAME_HEADER = struct.Struct("!HBBBI")
_STREAM = 1
# Indexes of HPACK's static table (RFC 7541, appendix A)
_METHOD_POST, _SCHEME_HTTP, _AUTHORITY, _PATH, _CONTENT_TYPE = 0x83, 0x86, 1, 4, 31
_EMPTY_MESSAGE = bytes(5)


def check_call(address: Address, method: str, timeout_s: float) -> None:
    """Call a method with an empty message, and wait for the beginning of any response.

    Args:
        address: where the server listens, without TLS.
        method: path of the method, such as /package.Service/Method; at most 126 characters.
        timeout_s: longest wait for the connection and for each part of the response.

    Raises:
        OSError: there is no response.
    """
    with socket.create_connection((reachable(address.host), address.port), timeout_s) as connection:
        connection.sendall(
            _PREFACE
            + _frame(_SETTINGS, 0, 0)
            + _frame(_HEADERS, _END_HEADERS, _STREAM, _headers(method))
            + _frame(_DATA, _END_STREAM, _STREAM, _EMPTY_MESSAGE)
        )
        with connection.makefile("rb") as received:
            while head := received.read(_FRAME_HEADER.size):
                if len(head) < _FRAME_HEADER.size:
                    break
                high, low, kind, _, stream = _FRAME_HEADER.unpack(head)
                if (kind, stream) == (_HEADERS, _STREAM):
                    return
                received.read(high << 8 | low)
    raise ConnectionError("the server closed the connection without a response")


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return _FRAME_HEADER.pack(len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream) + payload


def _headers(method: str) -> bytes:
    return (
        bytes((_METHOD_POST, _SCHEME_HTTP))
        + _literal(bytes((_AUTHORITY,)), "localhost")
        + _literal(bytes((_PATH,)), method)
        + _literal(b"\x0f" + bytes((_CONTENT_TYPE - 15,)), "application/grpc")
        + _literal(b"\x00" + _text("te"), "trailers")
    )


def _literal(name: bytes, value: str) -> bytes:
    """A header without indexing: the index of its name or the name itself, and its value."""
    return name + _text(value)


def _text(text: str) -> bytes:
    return bytes((len(text),)) + text.encode()
