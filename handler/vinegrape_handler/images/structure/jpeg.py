"""The segments and scans of a JPEG (ITU T.81, annex B)."""

from __future__ import annotations

import re

from PIL import ImageFile

from vinegrape_handler.images.structure.limits import (
    JPEG_EXIF_SEGMENTS,
    JPEG_FILL_BYTES,
    JPEG_SEGMENTS,
    check_scans,
)

# A marker: not a fill byte, and not a stuffed byte of the compressed data
_MARKER = re.compile(rb"\xff[^\x00\xff]")
# The same, without the restart markers that are part of a scan
_MARKER_AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15: the header of a frame
_SEQUENTIAL = (0xC0, 0xC1)
_END, _SCAN, _APP1 = 0xD9, 0xDA, 0xE1
# TEM, JPG, RST0 to EOI, JPG0 to JPG13: they have no length, or Pillow does not skip it
_WITHOUT_LENGTH = frozenset((0x01, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)))


def check_jpeg(data: bytes, max_pixels: int, start: int = 0, end: int | None = None) -> float:
    """Check the number of segments and scans of a JPEG.

    Args:
        data: contains the JPEG.
        max_pixels: maximum pixels of an image.
        start: position of its first byte in data.
        end: position after its last byte in data; by default the end of data.

    Returns:
        The share of the work that one image may cost, 0 to 1.

    Raises:
        TooLarge: a limit is exceeded.
    """
    end = len(data) if end is None else min(end, len(data))
    position = start + 2
    segments = exif_segments = fill_bytes = scans = pixels = components = 0
    is_sequential = False
    share = 0.0
    while marker := (_MARKER_AFTER_SCAN if scans else _MARKER).search(data, position, end):
        if not scans:
            fill_bytes += marker.start() - position
            JPEG_FILL_BYTES.check(fill_bytes)
        segments += 1
        JPEG_SEGMENTS.check(segments)
        kind, position = data[marker.end() - 1], marker.end()
        if kind == _END and scans:
            break
        if kind in _WITHOUT_LENGTH:
            continue
        if kind == _APP1 and data.startswith(b"Exif\0\0", position + 2):
            exif_segments += 1
            JPEG_EXIF_SEGMENTS.check(exif_segments)
        elif kind in _FRAMES:
            height, width = (int.from_bytes(data[at : at + 2]) for at in (position + 3, position + 5))
            pixels = max(pixels, width * height)
            components, is_sequential = data[position + 7] if position + 7 < end else 0, kind in _SEQUENTIAL
        elif kind == _SCAN:
            scans += 1
            share = check_scans(scans, pixels, max_pixels)
            # libjpeg accepts no further scan after one with all components, so the compressed data need not be searched
            if is_sequential and position + 2 < end and data[position + 2] >= components:
                break
        position += max(2, int.from_bytes(data[position : position + 2]))
    else:
        share = check_scans(scans, pixels, max_pixels, has_end=False)
    return share


def jpeg_coefficient_bytes(image: ImageFile.ImageFile) -> int:
    """Return the memory that libjpeg needs for the coefficients of an opened image; 0 if it needs not all at once.

    For a progressive JPEG it keeps 2 bytes for each pixel and channel of the image before scaling.
    """
    if image.format not in ("JPEG", "MPO") or not image.info.get("progressive"):
        return 0
    scale = image.decoderconfig[0] if image.decoderconfig else 1
    width, height = image.size
    return int(2 * len(image.getbands()) * width * height * scale**2)
