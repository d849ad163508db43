"""JSON requests of many images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from vinegrape_handler.images.structure.limits import (
    BMP_RLE_BYTES,
    JPEG_SCANS_OF_LARGEST,
    PNG_CHUNKS,
    SIDE,
    TIFF_TAGS,
)
from vinegrape_handler.settings import WorkerSettings
from vinegrape_loadtests.client import instances_body
from vinegrape_loadtests.worst_images import bmp, jpeg, png, tiff
from vinegrape_loadtests.worst_images.image import WorstImage, repeated

_BODY_BYTES_PER_IMAGE_BYTE = 1.5  # the largest body, see `Dockerfile.serve` and docs/operations.md


def worst_requests(settings: WorkerSettings) -> Iterator[WorstImage]:
    """Yield the worst JSON requests."""
    count = settings.max_instances
    each, room = settings.max_image_pixels // count, settings.max_image_bytes // count
    side = int(each**0.5)
    longer = min(SIDE.most, each)
    rle = min(BMP_RLE_BYTES.most, room) - 2000
    images: dict[str, Callable[[], bytes]] = {
        "PNG, RGBA": partial(png.flat, side, side),
        "PNG, RGBA, tallest": partial(png.flat, each // longer, longer),
        "PNG, RGBA, widest": partial(png.flat, longer, each // longer),
        "PNG, many chunks": partial(png.with_chunks, b"prIV", room - 2000, PNG_CHUNKS.most - 2),
        "JPEG, progressive, many scans": partial(
            jpeg.many_scans, side, JPEG_SCANS_OF_LARGEST * settings.max_image_pixels // each - count, room
        ),
        "JPEG, progressive, 29 scans": partial(jpeg.many_scans, side, JPEG_SCANS_OF_LARGEST - 1, room),
        "JPEG, EXIF segments": partial(jpeg.with_exif, room - 2000),
        "BMP, RLE8, runs of 1 pixel": partial(bmp.runs, int((rle / 2) ** 0.5) - 2, 8, bmp.RLE8, 1),
        "TIFF, tiles of 16 x 16": partial(tiff.tiled, side // 16 * 16, 16),
        "TIFF, 64 x 64, one tile": partial(tiff.one_tile, 64, side // 16 * 16, 4),
        "TIFF, strips of 1 row": partial(tiff.strips_of_rows, each // longer, min(longer, room // 10)),
        "TIFF, many tags": partial(tiff.with_tags, min(TIFF_TAGS.most - 10, room // 24), room // 3),
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
