"""JSON requests of many images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from vinegrape_handler.settings import WorkerSettings
from vinegrape_loadtests.client import instances_body
from vinegrape_loadtests.worst_images import jpeg, png, tiff
from vinegrape_loadtests.worst_images.image import WorstImage, repeated

_BODY_BYTES_PER_IMAGE_BYTE = 1.5  # the largest body, see `Dockerfile.serve` and docs/operations.md


def worst_requests(settings: WorkerSettings) -> Iterator[WorstImage]:
    """Yield the worst JSON requests."""
    count = settings.max_instances
    each, room = settings.max_image_pixels // count, settings.max_image_bytes // count
    side = int(each**0.5)
    images: dict[str, Callable[[], bytes]] = {
        "PNG, RGBA": partial(png.flat, side, side),
        "PNG, RGBA, 1 column": partial(png.flat, 1, each),
        "PNG, RGBA, 1 row": partial(png.flat, each, 1),
        "JPEG, progressive, 100 scans": partial(jpeg.many_scans, side, 100, room),
        "JPEG, progressive, scans up to the size limit": partial(jpeg.many_scans, side, 0, room),
        "TIFF, tiles of 16 x 16": partial(tiff.tiled, side, 16),
        "TIFF, 64 x 64, one tile": partial(tiff.one_tile, 64, side // 16 * 16, 4),
        "TIFF, strips of 1 row": partial(tiff.strips_of_rows, 1, room // 9),
    }
    for name, draw in images.items():
        yield WorstImage("JSON", f"{count} x {name}", count * each, partial(_repeat, draw, count))
    body_bytes = int(_BODY_BYTES_PER_IMAGE_BYTE * settings.max_image_bytes)
    values = {"lists": b"[],", "objects": b"{},", "lists in lists": b"[[", "empty images": b'{"b64":""},'}
    for name, item in values.items():
        yield WorstImage("JSON", f"many {name}", 0, partial(_many_values, item, body_bytes))


def _repeat(draw: Callable[[], bytes], count: int) -> bytes:
    return instances_body([draw()] * count)


def _many_values(item: bytes, room: int) -> bytes:
    start, end = b'{"instances":[', b"0]}"
    return start + repeated(item, room - len(start) - len(end)) + end
