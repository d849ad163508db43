"""The data of tensors in the Open Inference Protocol: lists of JSON, and the binary form of Triton's extension."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vinegrape_handler.errors import BadRequest

Datatype = Literal["FP32", "BOOL", "BYTES"]
"""The datatypes of outputs."""

_DTYPES = {"FP32": "<f4", "BOOL": "?"}
_LENGTH = struct.Struct("<I")


def flatten(data: list[Any]) -> list[Any]:
    """Return the values of a list that is nested like its tensor's shape, or not nested.

    Raises:
        BadRequest: some rows are lists, and others are not.
    """
    while data and isinstance(data[0], list):
        if not all(isinstance(row, list) for row in data):
            raise BadRequest('The "data" of the input is nested, but not everywhere to the same depth.')
        data = [value for row in data for value in row]
    return data


def read_uint8(content: memoryview | list[Any], shape: Sequence[int]) -> NDArray[np.uint8]:
    """Return a tensor of bytes with this shape.

    Args:
        content: the bytes in row-major order, or the numbers of the JSON.
        shape: of the tensor.

    Raises:
        BadRequest: the content has another size, or a value that is no number from 0 to 255.
    """
    try:
        data = content if isinstance(content, memoryview) else bytes(content)
    except (TypeError, ValueError) as error:
        raise BadRequest('The "data" of the input must be whole numbers from 0 to 255.') from error
    if len(data) != math.prod(shape):
        raise BadRequest(f"The input has {len(data)} values; its shape {list(shape)} needs {math.prod(shape)}.")
    return np.frombuffer(data, np.uint8).reshape(shape)


def read_bytes(content: memoryview | list[Any], count: int) -> list[bytes] | list[str]:
    """Return the elements of a tensor of byte strings. Those of JSON are texts.

    Args:
        content: each element after its length in 4 bytes, little-endian; or the values of the JSON.
        count: the number of elements.

    Raises:
        BadRequest: the content has another number of elements, or an element of another type.
    """
    elements = _split(content, count) if isinstance(content, memoryview) else content
    if len(elements) != count:
        raise BadRequest(
            f"The input has {'fewer' if len(elements) < count else 'more'} elements than its shape, {count}."
        )
    if not isinstance(content, memoryview) and not all(isinstance(element, str) for element in elements):
        raise BadRequest('The "data" of the input must be strings, with the images in base64.')
    return elements


def to_binary(values: Sequence[Any], datatype: Datatype) -> bytes:
    """Return the binary form of an output's values. Texts are encoded as UTF-8."""
    if datatype == "BYTES":
        encoded = [value.encode() for value in values]
        return b"".join(piece for text in encoded for piece in (_LENGTH.pack(len(text)), text))
    return np.array(values, _DTYPES[datatype]).tobytes()


def _split(content: memoryview, count: int) -> list[bytes]:
    """Split the content into `count` elements; into more if there are more."""
    elements: list[bytes] = []
    begin = 0
    while begin < len(content) and len(elements) <= count:
        end = begin + _LENGTH.size
        if end <= len(content):
            begin, end = end, end + _LENGTH.unpack(content[begin:end])[0]
        if end > len(content):
            raise BadRequest(
                "The binary data of the input ends within an element. Each element must stand after its length in 4 "
                "bytes, little-endian."
            )
        elements.append(bytes(content[begin:end]))
        begin = end
    return elements
