"""Read the one image out of a PredictionsRequest."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from vinegrape_handler.errors import BadRequest, NoImage, NotFound, TooLarge
from vinegrape_server.gateway.inference_pb2 import PredictionsRequest
from vinegrape_server.gateway.wire import check_fields

INPUT_NAMES = ("data", "image", "file", "body")

_MAX_FIELDS = 16  # a valid message has one input and at most four fields


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
    check_fields(message, "PredictionsRequest", _MAX_FIELDS)
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
