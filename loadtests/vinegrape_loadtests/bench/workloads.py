"""Workloads: the same leaf in each usual format, and a phone's photo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from vinegrape_loadtests.images import draw_photo, encode, encode_jpeg_within, flatten_on_white

_JPEG_BYTES = 40_000
# Two PNGs and two JPEGs per photo
_MIX = ("png", "jpeg", "png", "jpeg", "photo")


@dataclass(frozen=True)
class Workload:
    """Request bodies that are sent in turn.

    Attributes:
        name: used on the command line and in tables.
        bodies: encoded images.
        opaque: the same images without transparency.
    """

    name: str
    bodies: tuple[bytes, ...]
    opaque: tuple[bytes, ...]


def make_workloads(leaf: Path) -> dict[str, Workload]:
    """Build all workloads, by name.

    Args:
        leaf: a PNG file; those of the data set have 511 x 511 pixels and about 82 KB.
    """
    on_white = flatten_on_white(Image.open(leaf))
    bodies = {"png": leaf.read_bytes(), "jpeg": encode_jpeg_within(on_white, _JPEG_BYTES), "photo": draw_photo()}
    opaque = {**bodies, "png": encode(on_white, "PNG")}
    workloads = {name: Workload(name, (bodies[name],), (opaque[name],)) for name in bodies}
    workloads["mix"] = Workload("mix", tuple(bodies[name] for name in _MIX), tuple(opaque[name] for name in _MIX))
    return workloads
