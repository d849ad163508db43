"""What TorchServe hands over for one request, read into the images that it carries."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vinegrape_handler.contract import SELF_CHECK_HEADER
from vinegrape_handler.errors import BadRequest, NoImage, RequestError, TooLarge

# A raw REST body arrives as `body`; the others are names of form fields and of gRPC inputs.
IMAGE_FIELDS = ("body", "data", "image", "file")

# No image format begins like this
_JSON_OBJECT = re.compile(rb"\s*\{")


@dataclass(frozen=True)
class Request:
    """One request.

    Attributes:
        images: encoded images, or the error of one that could not even be read.
        instances: asked as JSON `instances`, and to be answered as `predictions`.
        describe: asks for the model's description instead.
        self_check: asks the worker to check itself instead.
    """

    images: tuple[bytes | RequestError, ...] = ()
    instances: bool = False
    describe: bool = False
    self_check: bool = False


def read(row: Mapping[str, Any], headers: Mapping[str, Any], max_instances: int, self_check: str = "") -> Request:
    """Read one request.

    Args:
        row: TorchServe's input map: a raw body, form fields or gRPC inputs, by name.
        headers: the request's headers, in any case; none over gRPC.
        max_instances: images accepted in one JSON request.
        self_check: the header's value that asks for a self-check; empty: nobody may.

    Raises:
        BadRequest, NoImage, TooLarge: the request as a whole is wrong.
    """
    value = next((row[name] for name in IMAGE_FIELDS if row.get(name)), None)
    if isinstance(value, bytearray | bytes):
        if not (_JSON_OBJECT.match(value) or _lower(headers).get("content-type", "").startswith("application/json")):
            return Request(images=(bytes(value),))
        value = _parse(value)
    if isinstance(value, dict):
        return Request(images=_read_instances(value, max_instances), instances=True)
    if value is not None:  # JSON that is no object, or a text that TorchServe decoded
        raise BadRequest('The body is no image, nor JSON of the form {"instances": [{"b64": "..."}]}.')
    if self_check and hmac.compare_digest(_lower(headers).get(SELF_CHECK_HEADER, "").encode(), self_check.encode()):
        return Request(self_check=True)
    if _asks_for_description(headers):
        return Request(describe=True)
    raise NoImage(
        "The request carries no image. Send it as the body (curl -T leaf.jpg URL), as the form field "
        "data, image or file, or as the gRPC input data. GET with 'Accept: application/json' describes the model."
    )


def transport(headers: Mapping[str, Any]) -> str:
    """How a request came, "rest" or "grpc": TorchServe hands over the headers of HTTP, and none of gRPC."""
    return "rest" if any(isinstance(value, str) for value in headers.values()) else "grpc"


def _asks_for_description(headers: Mapping[str, Any]) -> bool:
    """Whether a request without a body is a GET that wants JSON.

    TorchServe does not tell the method. It gives a GET the header `content-length: 0`; most clients write theirs with
    capitals, or name a content type with an upload, however empty.
    """
    lower = _lower(headers)
    uploads = "Content-Length" in headers or "content-type" in lower
    return "application/json" in lower.get("accept", "") and not uploads


def _lower(headers: Mapping[str, Any]) -> dict[str, str]:
    """Headers by lower-case name; TorchServe adds each input's to them, which are no text."""
    return {name.lower(): value for name, value in headers.items() if isinstance(value, str)}


def _parse(body: bytes | bytearray) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"The JSON cannot be read: {error}") from error


def _read_instances(body: Mapping[str, Any], max_instances: int) -> tuple[bytes | RequestError, ...]:
    instances = body.get("instances")
    if not isinstance(instances, list):
        raise BadRequest('The JSON has no list "instances"; it must be {"instances": [{"b64": "..."}]}.')
    if not instances:
        raise NoImage('The list "instances" is empty.')
    if len(instances) > max_instances:
        raise TooLarge(f"The request has {len(instances)} instances; at most {max_instances} are accepted.")
    return tuple(_read_instance(instance) for instance in instances)


def _read_instance(instance: Any) -> bytes | RequestError:
    text = instance.get("b64") if isinstance(instance, dict) else None
    if not isinstance(text, str):
        return BadRequest('The instance must be {"b64": "..."}, with the image in base64.')
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        return BadRequest(f"The instance's b64 is not base64: {error}")
