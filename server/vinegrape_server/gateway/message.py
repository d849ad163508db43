"""Read a PredictionsRequest: its image, and whether the prediction should be explained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from google.protobuf.message import DecodeError

from vinegrape_handler.errors import BadRequest, NoImage, NotFound, TooLarge
from vinegrape_server.gateway.inference_pb2 import PredictionsRequest
from vinegrape_server.gateway.wire import check_fields

INPUT_NAMES = ("data", "image", "file", "body")
EXPLAIN, CLASS = "explain", "class"
"""The names of the inputs beside the image."""

_MAX_CLASS_BYTES = 1000

_MAX_FIELDS = 16  # a valid message has up to three inputs and at most four fields


class ImageRequest(NamedTuple):
    """What a PredictionsRequest asks for.

    Attributes:
        image: the image, or the JSON with several images.
        explain: whether the prediction should be explained.
        class_: the class to explain; empty for the most probable one.
    """

    image: bytes
    explain: bool = False
    class_: str = ""


def read_message(message: bytes, model_name: str, model_version: str, max_bytes: int) -> ImageRequest:
    """Read a serialized PredictionsRequest.

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
    images = {name: value for name, value in request.input.items() if name not in (EXPLAIN, CLASS)}
    if len(images) > 1:
        raise BadRequest(
            f"The message has {len(images)} inputs beside {EXPLAIN!r} and {CLASS!r}; it must have one. Send several "
            "images as JSON, or in several calls."
        )
    for name, value in images.items():
        if name in INPUT_NAMES:
            return ImageRequest(bytes(value), *_read_explain(request.input))
    raise NoImage('The request carries no image. Send it as the input "data".')


def _read_explain(inputs: Mapping[str, bytes]) -> tuple[bool, str]:
    """Return whether an explanation is wanted, and of which class."""
    explain, class_ = inputs.get(EXPLAIN, b"0"), inputs.get(CLASS, b"")
    if explain not in (b"0", b"1"):
        raise BadRequest(f"The input {EXPLAIN!r} is {bytes(explain[:40])!r}; it must be 1, or 0 for no explanation.")
    if class_ and explain == b"0":
        raise BadRequest(f"The input {CLASS!r} names the class to explain. Set the input {EXPLAIN!r} to 1, too.")
    if len(class_) > _MAX_CLASS_BYTES:
        raise BadRequest(f"The input {CLASS!r} has {len(class_)} bytes; at most {_MAX_CLASS_BYTES} are accepted.")
    return explain == b"1", str(class_, "utf-8", "replace")
