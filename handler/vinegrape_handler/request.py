"""Parse one request: find the images in what TorchServe passes to the handler."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from vinegrape_handler import forms
from vinegrape_handler.accept import preferred
from vinegrape_handler.contract import CONTENT_TYPE_HEADER, SELF_CHECK_HEADER, TRANSPORT_HEADER
from vinegrape_handler.errors import BadRequest, NoImage, RequestError, UnsupportedFormat
from vinegrape_handler.images.decode import has_signature
from vinegrape_handler.instances import FORM, max_values, parse_json, read_instances

# TorchServe passes a raw body as `body`. The other names are those of form fields.
IMAGE_FIELDS = ("body", "data", "image", "file")
PARAMETERS = ("top_k", "format", "class")
"""Parameters of the query, or form fields with these names. TorchServe passes the fields only."""

_JSON = "application/json"
_HTML = "text/html"
_URLENCODED = "application/x-www-form-urlencoded"

# No supported image format starts with a brace, or with a byte order mark and a brace (UTF-8, UTF-16).
_JSON_OBJECT = re.compile(rb"(?:\xef\xbb\xbf)?\s*\{|\xff\xfe\{|\xfe\xff\0\{")

_HOW_TO_SEND = "Send the image as the body (curl -T leaf.jpg URL), or as the form field data, image or file."


@dataclass(frozen=True)
class Request:
    """One parsed request.

    Attributes:
        kind: "image": classify one image. "instances": classify the images of a JSON request. "describe": return the
            model's description. "page": return the web page.
        parameters: the values of form fields by the name of the parameter.
        images: encoded images; an error takes the place of an image that could not be read. "image" has one, and
            "instances" has at least one. The other kinds have none.
    """

    kind: Literal["image", "instances", "describe", "page"]
    images: tuple[bytes | RequestError, ...] = ()
    parameters: Mapping[str, Sequence[str]] = field(default_factory=dict)


def read_request(row: Mapping[str, Any], headers: Mapping[str, Any], max_instances: int) -> Request:
    """Parse one request.

    Args:
        row: TorchServe's inputs by name: a raw body, or form fields. Fields with the same name are a list.
        headers: the request's headers, with names in any case.
        max_instances: maximum images in one JSON request.

    Raises:
        BadRequest, NoImage, TooLarge, UnsupportedFormat: the request as a whole is invalid.
    """
    # The edge labels each body as octet-stream for TorchServe, and passes the client's content type on
    passed_on = headers.get(CONTENT_TYPE_HEADER, "")
    if passed_on and row.get("body") and _is_form(row["body"], passed_on):
        form: dict[str, list[bytes]] = {}
        for name, value in forms.read_form(row["body"], passed_on, (*IMAGE_FIELDS, *PARAMETERS)):
            form.setdefault(name, []).append(value)
        fields = _image_fields(form)
        if not fields:
            raise NoImage("The form has no field with an image. Its name must be data, image or file.")
        return replace(_read_value(_only_one(fields), "", max_instances), parameters=_parameters(form))
    fields = _image_fields(row)
    if fields:
        request = _read_value(_only_one(fields), passed_on or _content_type(headers), max_instances)
        return replace(request, parameters=_parameters(row))
    accepted = None if _uploads(headers) else preferred(text_headers(headers).get("accept", ""), (_JSON, _HTML))
    if accepted == _JSON:
        return Request("describe")
    if accepted == _HTML:
        return Request("page")
    raise NoImage(
        "The request carries no image. Send it as the body (curl -T leaf.jpg URL), or as the form field or the gRPC "
        "input data, image or file. GET with 'Accept: application/json' describes the model."
    )


def transport(headers: Mapping[str, Any]) -> Literal["rest", "grpc"]:
    """Return how a request arrived."""
    return "grpc" if headers.get(TRANSPORT_HEADER) == "grpc" else "rest"


def requests_self_check(headers: Mapping[str, Any], token: str) -> bool:
    """Return whether a request has the token that requests a self-check; none has if the token is empty."""
    sent = headers.get(SELF_CHECK_HEADER)
    # compare_digest takes the same time for every wrong token, so the time does not reveal the right one
    return bool(token) and isinstance(sent, str) and hmac.compare_digest(sent.encode(), token.encode())


def _image_fields(row: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(name, value) for name in IMAGE_FIELDS for value in _values(row.get(name))]


def _parameters(row: Mapping[str, Any]) -> dict[str, list[str]]:
    return {
        name: [
            str(value, "utf-8", "replace") if isinstance(value, bytes | bytearray) else str(value) for value in values
        ]
        for name in PARAMETERS
        if (values := _values(row.get(name)))
    }


def _values(value: Any) -> list[Any]:
    """Return the values that TorchServe passes under one name, without empty ones."""
    if isinstance(value, list) and all(isinstance(item, bytes) for item in value):
        return [item for item in value if item]
    return [value] if value else []


def _only_one(fields: list[tuple[str, Any]]) -> Any:
    """Return the value of the only field.

    Raises:
        BadRequest: there are several fields.
    """
    if len(fields) > 1:
        names = " and ".join(name for name, _ in fields)
        raise BadRequest(
            f"The request has {len(fields)} images, in the fields {names}. Send one image per form, or several as the "
            f"JSON {FORM}."
        )
    return fields[0][1]


def _is_form(body: bytes, content_type: str) -> bool:
    return _media_type(content_type) == forms.MEDIA_TYPE and not _has_own_format(body)


def _has_own_format(body: bytes | bytearray) -> bool:
    """Return whether a body is an image or JSON, which many clients send with a wrong content type."""
    return has_signature(body) or starts_json_object(body)


def starts_json_object(body: bytes | bytearray) -> bool:
    """Return whether a body starts like a JSON object, in UTF-8 or UTF-16. It is then read as JSON, not as an image."""
    return _JSON_OBJECT.match(body) is not None


def _read_value(value: Any, content_type: str, max_instances: int) -> Request:
    """Read an image, or the images of a JSON object.

    Args:
        value: a body or the content of a form field; TorchServe's own worker passes JSON as parsed.
        content_type: of a body; it decides only if the body is neither an image nor a JSON object. May be empty.
        max_instances: maximum images in one JSON request.
    """
    if isinstance(value, bytearray | bytes):
        if has_signature(value):
            return Request("image", (bytes(value),))
        if not (starts_json_object(value) or _is_json(content_type)):
            _check_content_type(content_type)
            return Request("image", (bytes(value),))  # the decoder names the supported formats
        value = parse_json(value, max_values(max_instances))
    if isinstance(value, dict):
        return Request("instances", read_instances(value, max_instances))
    raise BadRequest(f"The body is neither an image nor JSON of the form {FORM}.")


def _check_content_type(content_type: str) -> None:
    """Check the content type of a body that is neither an image nor a JSON object.

    Raises:
        BadRequest, UnsupportedFormat: the content type explains why the body cannot be read.
    """
    media_type = _media_type(content_type)
    if media_type == _URLENCODED:
        raise BadRequest(
            f"The content type {_URLENCODED} is for forms that contain text only, and this body is neither an image "
            f"nor JSON. {_HOW_TO_SEND}"
        )
    # Without the edge, TorchServe has parsed forms
    if media_type.startswith(("multipart/", "message/")) and media_type != forms.MEDIA_TYPE:
        raise UnsupportedFormat(f"The content type {media_type[:80]} is not supported. {_HOW_TO_SEND}")


def _media_type(content_type: str) -> str:
    """Return a content type in lower case without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def _is_json(content_type: str) -> bool:
    media_type = _media_type(content_type)
    return media_type == _JSON or media_type.endswith("+json")


def _content_type(headers: Mapping[str, Any]) -> str:
    return text_headers(headers).get("content-type", "")


def _uploads(headers: Mapping[str, Any]) -> bool:
    """Return whether a request without a body is an empty upload instead of a GET.

    TorchServe does not pass the method. To a GET it adds the header `content-length: 0`. An empty upload has a
    `Content-Length` with capitals, which most clients write, or a content type.
    """
    return "Content-Length" in headers or "content-type" in text_headers(headers)


def text_headers(headers: Mapping[str, Any]) -> dict[str, str]:
    """Return the request's headers by lower-case name, without the dictionaries that TorchServe adds per input."""
    return {name.lower(): value for name, value in headers.items() if isinstance(value, str)}
