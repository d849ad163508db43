"""HTTP/2 frames, written and read by hand (RFC 9113): floods need frames that no client library sends."""

from __future__ import annotations

import struct
from typing import NamedTuple

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
ACK = END_STREAM = 0x1
END_HEADERS = 0x4
MAX_FRAME = 16_384  # the initial values of SETTINGS_MAX_FRAME_SIZE and SETTINGS_INITIAL_WINDOW_SIZE
WINDOW = 65_535
NO_ERROR, CANCEL = 0, 8

_POST, _HTTP, _PATH, _AUTHORITY = b"\x83", b"\x86", b"\x04", b"\x01"  # HPACK's static table
_STATUS_200 = 0x88


class Frame(NamedTuple):
    """One frame."""

    type: int
    flags: int
    stream: int
    payload: bytes


def frame(type_: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return the bytes of a frame."""
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", type_, flags, stream) + payload


def take_frame(received: bytearray) -> Frame | None:
    """Remove the first frame from what was received and return it; None if it is not complete."""
    if len(received) < 9:
        return None
    length = int.from_bytes(received[:3], "big")
    if len(received) < 9 + length:
        return None
    type_, flags, stream = struct.unpack(">BBI", received[3:9])
    payload = bytes(received[9 : 9 + length])
    del received[: 9 + length]
    return Frame(type_, flags, stream & 0x7FFFFFFF, payload)


def post_headers(path: str, **headers: str) -> bytes:
    """Return the header block of a POST request, without compression.

    Args:
        path: the path.
        headers: further headers; an underscore stands for a hyphen.
    """
    block = _POST + _HTTP + _PATH + _text(path) + _AUTHORITY + _text("vinegrape")
    return block + b"".join(b"\x00" + _text(name.replace("_", "-")) + _text(value) for name, value in headers.items())


def status(block: bytes) -> int:
    """Return the status at the start of a response's header block; 0 if it is written in a way not known here."""
    first = block[0]
    if first == _STATUS_200:
        return 200
    if 0x88 < first <= 0x8E:
        return (204, 206, 304, 400, 404, 500)[first - 0x89]
    # a literal whose name is one of the static table's ":status", with or without indexing
    if first in (0x48, 0x08) and block[1] == 3:
        return int(block[2:5])
    if first in (0x48, 0x08) and block[1] & 0x80:
        return _huffman_status(block[2 : 2 + (block[1] & 0x7F)])
    return 0


def _huffman_status(code: bytes) -> int:
    """Decode three digits. Huffman's codes are 0 to 2 in 5 bits for 0 to 2, and 25 to 31 in 6 bits for 3 to 9."""
    bits, digits = "".join(f"{byte:08b}" for byte in code), ""
    while len(digits) < 3 and len(bits) >= 5:
        short = int(bits[:5], 2)
        if short <= 2:
            digits, bits = digits + str(short), bits[5:]
        else:
            digits, bits = digits + str(int(bits[:6], 2) - 22), bits[6:]
    return int(digits) if digits.isdigit() else 0


def _text(value: str) -> bytes:
    """Return HPACK's string: its length as a number with a prefix of 7 bits, then the bytes."""
    data = value.encode()
    assert len(data) < 127  # noqa: S101 - a longer one needs further bytes for its length
    return bytes((len(data),)) + data
