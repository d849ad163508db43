"""Parse the input of one TorchServe request."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vinegrape_handler.contract import SELF_CHECK_HEADER
from vinegrape_handler.errors import BadRequest, NoImage, RequestError, TooLarge

# TorchServe passes a raw REST body as `body`. The other names are those of form fields and of gRPC inputs.
IMAGE_FIELDS = ("body", "data", "image", "file")

_JSON = "application/json"

# No supported image format starts with a brace.
_JSON_OBJECT = re.compile(rb"\s*\{")

_INSTANCES_FORM = '{"instances": [{"b64": "..."}]}'


@dataclass(frozen=True)
class Request:
    """One parsed request.

    Attributes:
        kind: "image": classify one image. "instances": classify the images of a JSON request. "describe": return the
            model's description. "self_check": run the worker's self-check.
        images: encoded images; an error takes the place of an image that could not be read. "image" has one, and
            "instances" has at least one. The other kinds have none.
    """

    kind: Literal["image", "instances", "describe", "self_check"]
    images: tuple[bytes | RequestError, ...] = ()


def read_request(
    row: Mapping[str, Any], headers: Mapping[str, Any], max_instances: int, self_check_token: str = ""
) -> Request:
    """Parse one request.

    Args:
        row: TorchServe's inputs by name: a raw body, form fields or gRPC inputs.
        headers: the request's headers, with names in any case. A gRPC request has none.
        max_instances: maximum images in one JSON request.
        self_check_token: value of the header that requests a self-check. If empty, self-checks are disabled.

    Raises:
        BadRequest, NoImage, TooLarge: the request as a whole is invalid.
    """
    if self_check_token and _requests_self_check(headers, self_check_token):
        return Request("self_check")  # whatever its body is
    value = next((row[name] for name in IMAGE_FIELDS if row.get(name)), None)
    if isinstance(value, bytearray | bytes):
        if not (_JSON_OBJECT.match(value) or _text_headers(headers).get("content-type", "").startswith(_JSON)):
            return Request("image", (bytes(value),))
        value = _parse_json(value)
    if isinstance(value, dict):
        return Request("instances", _read_instances(value, max_instances))
    if value is not None:  # JSON that is not an object, or a text that TorchServe has decoded
        raise BadRequest(f"The body is neither an image nor JSON of the form {_INSTANCES_FORM}.")
    if _requests_description(headers):
        return Request("describe")
    raise NoImage(
        "The request carries no image. Send it as the body (curl -T leaf.jpg URL), as the form field "
        "data, image or file, or as the gRPC input data. GET with 'Accept: application/json' describes the model."
    )


def transport(headers: Mapping[str, Any]) -> Literal["rest", "grpc"]:
    """Return how a request arrived. TorchServe passes text headers only for REST."""
    return "rest" if any(isinstance(value, str) for value in headers.values()) else "grpc"


def _requests_self_check(headers: Mapping[str, Any], token: str) -> bool:
    # compare_digest takes the same time for every wrong token, so the time does not reveal the right one
    return hmac.compare_digest(_text_headers(headers).get(SELF_CHECK_HEADER, "").encode(), token.encode())


def _requests_description(headers: Mapping[str, Any]) -> bool:
    """Return whether a request without a body is a GET that accepts JSON.

    TorchServe does not pass the method. To a GET it adds the header `content-length: 0`. An empty upload has a
    `Content-Length` with capitals, which most clients write, or a content type.
    """
    lower = _text_headers(headers)
    uploads = "Content-Length" in headers or "content-type" in lower
    return _JSON in lower.get("accept", "") and not uploads


def _text_headers(headers: Mapping[str, Any]) -> dict[str, str]:
    """Return the request's headers by lower-case name, without the dictionaries that TorchServe adds per input."""
    return {name.lower(): value for name, value in headers.items() if isinstance(value, str)}


def _parse_json(body: bytes | bytearray) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"The JSON cannot be read: {error}") from error


def _read_instances(body: Mapping[str, Any], max_instances: int) -> tuple[bytes | RequestError, ...]:
    instances = body.get("instances")
    if not isinstance(instances, list):
        raise BadRequest(f'The JSON has no list "instances"; it must be {_INSTANCES_FORM}.')
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
        return BadRequest(f"The instance's b64 is not valid base64: {error}")
