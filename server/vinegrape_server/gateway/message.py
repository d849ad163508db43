"""Read the one image out of a PredictionsRequest."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from vinegrape_handler.errors import BadRequest, NoImage, NotFound, TooLarge
from vinegrape_server.gateway.inference_pb2 import PredictionsRequest

INPUT_NAMES = ("data", "image", "file", "body")

# Protobuf needs up to 60 times the size of a message that consists of many small fields. A valid message has one input
# and at most four fields.
_MAX_FIELDS = 16
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def read_image(message: bytes, model_name: str, model_version: str, max_bytes: int) -> bytes:
    """Return the image (or the JSON with several images) that a serialized PredictionsRequest carries.

    Args:
        message: the serialized PredictionsRequest.
        model_name: name of the served model.
        model_version: its version.
        max_bytes: maximum bytes of the message.

    Raises:
        TooLarge, BadRequest, NoImage, NotFound: the message is invalid.
    """
    if len(message) > max_bytes:
        raise TooLarge(f"The message has {len(message)} bytes; at most {max_bytes} are accepted.")
    _check_fields(message)
    try:
        request = PredictionsRequest.FromString(message)
    except DecodeError as error:
        raise BadRequest("The message is not a PredictionsRequest (clients/inference.proto).") from error
    if not request.model_name:
        raise BadRequest(f"The model_name is empty; it must be {model_name!r}.")
    if request.model_name != model_name:
        raise NotFound(f"The model {request.model_name[:100]!r} is not served. The served model is {model_name!r}.")
    if request.model_version not in ("", model_version):
        raise NotFound(
            f"Version {request.model_version[:100]!r} is not served. Leave model_version empty, or set it to "
            f"{model_version!r}."
        )
    if len(request.input) > 1:
        raise BadRequest(
            f"The message has {len(request.input)} inputs; it must have one. Send several images as JSON, or in "
            "several calls."
        )
    for name, value in request.input.items():
        if name in INPUT_NAMES:
            return bytes(value)
    raise NoImage('The request carries no image. Send it as the input "data".')


def _check_fields(message: bytes) -> None:
    """Check that a message has few fields, without reading into them.

    Raises:
        BadRequest: it has too many fields, or is not in protobuf's format.
    """
    position, end = 0, len(message)
    for _ in range(_MAX_FIELDS):
        if position == end:
            return
        tag, position = _varint(message, position)
        wire_type = tag & 7
        if wire_type == _BYTES:
            size, position = _varint(message, position)
            position += size
        elif wire_type == _VARINT:
            _, position = _varint(message, position)
        elif wire_type in (_FIXED64, _FIXED32):
            position += 8 if wire_type == _FIXED64 else 4
        else:
            raise BadRequest("The message is not a PredictionsRequest: it contains a group.")
        if position > end:
            raise BadRequest("The message is not a PredictionsRequest: it ends within a field.")
    if position < end:
        raise BadRequest(f"The message has more than {_MAX_FIELDS} fields and inputs; a valid message has one input.")


def _varint(message: bytes, position: int) -> tuple[int, int]:
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
    raise BadRequest("The message is not a PredictionsRequest: an integer has no end.")
