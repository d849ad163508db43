"""The two messages of clients/inference.proto, written and read by hand, without the compiler of gRPC."""

from __future__ import annotations

import numpy as np

from vinegrape_loadtests.client import MODEL_NAME

METHOD = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"

_MODEL_NAME, _INPUT, _KEY, _VALUE = 0x0A, 0x1A, 0x0A, 0x12  # field number and wire type "length-delimited"


def predictions_request(image: bytes, key: str = "data") -> bytes:
    """Build a `PredictionsRequest` with one input."""
    return _field(_MODEL_NAME, MODEL_NAME.encode()) + _field(_INPUT, _field(_KEY, key.encode()) + _field(_VALUE, image))


def predictions_request_of_keys(count: int) -> bytes:
    """Build a `PredictionsRequest` with many inputs, all with different keys of 4 characters and without a value."""
    numbers = np.arange(count, dtype=np.uint32)
    entries = np.empty((count, 8), np.uint8)
    entries[:, :4] = _INPUT, 6, _KEY, 4
    for column, shift in enumerate((21, 14, 7, 0), start=4):
        entries[:, column] = numbers >> shift & 0x7F  # ASCII
    return _field(_MODEL_NAME, MODEL_NAME.encode()) + entries.tobytes()


def prediction(response: bytes) -> bytes:
    """Return the field `prediction` of a `PredictionResponse`, which has no other field.

    Raises:
        ValueError: the message is something else.
    """
    if not response:
        return b""
    length, start = _read_varint(response, 1)
    if response[0] != _MODEL_NAME or len(response) != start + length:
        raise ValueError("no PredictionResponse")
    return response[start:]


def _field(tag: int, content: bytes) -> bytes:
    return bytes((tag,)) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Return a number and the position after it."""
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
