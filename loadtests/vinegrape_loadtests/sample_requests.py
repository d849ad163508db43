"""The requests that users send: a leaf as PNG and as JPEG, a photo, two invalid images, and four images as JSON."""

from __future__ import annotations

from dataclasses import dataclass

from vinegrape_loadtests.client import instances_body
from vinegrape_loadtests.images import draw_leaf, draw_photo, encode


@dataclass(frozen=True)
class ExpectedError:
    """The error that the server must return for an invalid image."""

    status: int
    type: str


@dataclass(frozen=True)
class SampleRequest:
    """One request.

    Attributes:
        name: shown in Locust's tables.
        body: an encoded image, or JSON.
        content_type: media type of the body.
        expected: for each image in order, the image's name, or the error that the server must return for it.
        instances: whether the body is JSON with several images, and the response must have the key `predictions`.
    """

    name: str
    body: bytes
    content_type: str
    expected: tuple[str | ExpectedError, ...]
    instances: bool = False


def make_sample_requests() -> dict[str, SampleRequest]:
    """Build all requests, by name. The bytes are the same each time; drawing the images takes about a second."""
    png = encode(draw_leaf("Ak", 512), "PNG")
    jpeg = encode(draw_leaf("Dimnit", 1024), "JPEG", quality=90)
    truncated, text = png[: len(png) // 2], b"This is no image."
    single = (
        SampleRequest("png", png, "image/png", ("png",)),
        SampleRequest("jpeg", jpeg, "image/jpeg", ("jpeg",)),
        SampleRequest("photo", draw_photo(), "image/jpeg", ("photo",)),
        SampleRequest("cut", truncated, "image/png", (ExpectedError(422, "broken_image"),)),
        SampleRequest("text", text, "application/octet-stream", (ExpectedError(415, "unsupported_format"),)),
    )
    by_name = {request.name: request for request in single}
    by_name["instances"] = _combine([by_name[name] for name in ("png", "cut", "jpeg", "text")])
    return by_name


def _combine(requests: list[SampleRequest]) -> SampleRequest:
    body = instances_body(request.body for request in requests)
    expected = tuple(image for request in requests for image in request.expected)
    return SampleRequest("instances", body, "application/json", expected, instances=True)
