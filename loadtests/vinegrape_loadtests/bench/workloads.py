"""What is asked: the same leaf in each form in which it comes, and a phone's photo."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from vinegrape_loadtests import sample_requests as questions

_JPEG_BYTES = 40_000
_MIX = ("png", "jpeg", "png", "jpeg", "photo")


@dataclass(frozen=True)
class Workload:
    """Bodies that are asked in turn.

    Attributes:
        name: on the command line and in tables.
        meaning: in words.
        bodies: encoded images.
        opaque: the same without transparency.
    """

    name: str
    meaning: str
    bodies: tuple[bytes, ...]
    opaque: tuple[bytes, ...]


def make_workloads(leaf: Path) -> dict[str, Workload]:
    """All workloads by name.

    Args:
        leaf: a PNG; the data set's have 511 pixels a side and 82 KB.
    """
    on_white = _on_white(leaf)
    bodies = {
        "png": leaf.read_bytes(),
        "jpeg": _jpeg(on_white),
        "photo": questions.draw_questions()["photo"].body,
    }
    opaque = {**bodies, "png": _encode(on_white, "PNG")}
    megapixels = _megapixels(bodies["photo"])
    meanings = {
        "png": f"the leaf as PNG, {len(bodies['png']) / 1e3:.0f} KB",
        "jpeg": f"the same as JPEG, {len(bodies['jpeg']) / 1e3:.0f} KB",
        "photo": f"a phone's JPEG, {megapixels:.0f} megapixels, {len(bodies['photo']) / 1e6:.1f} MB",
    }
    single = {name: Workload(name, meanings[name], (body,), (opaque[name],)) for name, body in bodies.items()}
    mix = Workload(
        "mix",
        "two of each leaf to one photo",
        tuple(bodies[name] for name in _MIX),
        tuple(opaque[name] for name in _MIX),
    )
    return {**single, "mix": mix}


def _on_white(leaf: Path) -> Image.Image:
    image = Image.open(leaf).convert("RGBA")
    canvas = Image.new("RGB", image.size, (255, 255, 255))
    canvas.paste(image, mask=image)
    return canvas


def _jpeg(image: Image.Image) -> bytes:
    """At the highest quality that 40 KB allow."""
    encoded = [_encode(image, "JPEG", quality=quality) for quality in range(100, 0, -5)]
    return next((data for data in encoded if len(data) <= _JPEG_BYTES), encoded[-1])


def _encode(image: Image.Image, format_: str, **options: int) -> bytes:
    out = io.BytesIO()
    image.save(out, format_, **options)
    return out.getvalue()


def _megapixels(data: bytes) -> float:
    width, height = Image.open(io.BytesIO(data)).size
    return width * height / 1e6
