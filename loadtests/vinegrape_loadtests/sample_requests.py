"""What users ask: a leaf as PNG and JPEG, a phone's photo, broken images, and several at once as JSON."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, ImageChops

from vinegrape_training.data import drawn_leaves

_PHOTO_SIZE = (4032, 3024)  # 12 megapixels
_GRAIN = 24  # of 255, either way: some 3 MB as JPEG
_TURNED_LEFT = 6  # EXIF: how a phone that was held upright writes its photo


@dataclass(frozen=True)
class Failure:
    """The error that an image must get."""

    status: int
    type: str


@dataclass(frozen=True)
class Question:
    """One request.

    Attributes:
        name: in Locust's tables.
        body: an encoded image, or JSON.
        content_type: of the body.
        expected: for each of its images in order, the picture's name, or the error it must get.
        instances: asked as JSON, and to be answered as `predictions`.
    """

    name: str
    body: bytes
    content_type: str
    expected: tuple[str | Failure, ...]
    instances: bool = False


def draw_questions() -> dict[str, Question]:
    """Every question by its name; the same bytes each time. Drawing takes about a second."""
    png = _encode(_leaf("Ak", 512), "PNG")
    jpeg = _encode(_leaf("Dimnit", 1024), "JPEG", quality=90)
    cut, text = png[: len(png) // 2], b"This is no image."
    asked = (
        Question("png", png, "image/png", ("png",)),
        Question("jpeg", jpeg, "image/jpeg", ("jpeg",)),
        Question("photo", _photo(), "image/jpeg", ("photo",)),
        Question("cut", cut, "image/png", (Failure(422, "broken_image"),)),
        Question("text", text, "application/octet-stream", (Failure(415, "unsupported_format"),)),
    )
    together = [asked[index] for index in (0, 3, 1, 4)]
    return {question.name: question for question in (*asked, _instances(together))}


def _instances(parts: list[Question]) -> Question:
    body = json.dumps({"instances": [{"b64": base64.b64encode(part.body).decode()} for part in parts]})
    expected = tuple(image for part in parts for image in part.expected)
    return Question("instances", body.encode(), "application/json", expected, instances=True)


def _leaf(kind: str, side: int) -> Image.Image:
    leaf = drawn_leaves.draw_leaf(kind, np.random.default_rng(0), side)
    canvas = Image.new("RGB", leaf.size, (255, 255, 255))
    canvas.paste(leaf, mask=leaf.getchannel("A"))
    return canvas


def _photo() -> bytes:
    """A leaf with a sensor's grain, without which its JPEG would be as small as no phone's is."""
    width, height = _PHOTO_SIZE
    grain = np.random.default_rng(0).integers(0, 2 * _GRAIN, (height // 8, width // 8, 3), dtype=np.uint8)
    grained = Image.fromarray(np.tile(grain, (8, 8, 1)))
    photo = ImageChops.add(_leaf("Nazli", 1024).resize(_PHOTO_SIZE), grained, offset=-_GRAIN)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = _TURNED_LEFT
    return _encode(photo, "JPEG", quality=85, exif=exif)


def _encode(image: Image.Image, format_: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format_, **options)
    return out.getvalue()
