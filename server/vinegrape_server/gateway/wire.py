"""Check the wire format of a protobuf message before protobuf parses it.

Protobuf needs up to 60 times the size of a message that consists of many small fields, and up to 8 times that of a list
of numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vinegrape_handler.errors import BadRequest

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class Shape:
    """What is known of a message, by the numbers of its fields.

    Attributes:
        messages: the fields that hold messages whose fields are checked too.
        max_bytes: maximum bytes of fields that hold lists of numbers.
    """

    messages: Mapping[int, Shape] = field(default_factory=dict)
    max_bytes: Mapping[int, int] = field(default_factory=dict)


_LEAF = Shape()


def check_fields(message: bytes, name: str, most: int, shape: Shape = _LEAF) -> None:
    """Check that a message has few fields, those of the messages in it included.

    Args:
        message: the serialized message.
        name: of its type.
        most: maximum number of fields.
        shape: which fields hold messages; no others are read.

    Raises:
        BadRequest: it has too many fields, a field that is too large, or is not in protobuf's format.
    """
    open_messages = [(len(message), shape)]  # the end of each message that has begun
    position = 0
    for _ in range(most):
        while open_messages and position == open_messages[-1][0]:
            open_messages.pop()
        if not open_messages:
            return
        end, known = open_messages[-1]
        tag, position = _varint(message, position, name)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == _BYTES:
            size, position = _varint(message, position, name)
            if size > known.max_bytes.get(number, size):
                raise BadRequest(
                    f"Field {number} of a message in the {name} has {size} bytes; at most {known.max_bytes[number]} "
                    "are accepted. Send a tensor as raw_input_contents."
                )
            if number in known.messages and position + size <= end:
                open_messages.append((position + size, known.messages[number]))
            else:
                position += size
        elif wire_type == _VARINT:
            _, position = _varint(message, position, name)
        elif wire_type in (_FIXED64, _FIXED32):
            position += 8 if wire_type == _FIXED64 else 4
        else:
            raise BadRequest(f"The message is not a {name}: it contains a group.")
        if position > end:
            raise BadRequest(f"The message is not a {name}: it ends within a field.")
    if any(position < end for end, _ in open_messages):
        raise BadRequest(f"The message has more than {most} fields.")


def _varint(message: bytes, position: int, name: str) -> tuple[int, int]:
    """Return the integer at a position, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            break
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise BadRequest(f"The message is not a {name}: an integer has no end.")
