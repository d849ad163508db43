"""Read the segments of a JPEG file, and open files that Pillow alone would refuse."""

from __future__ import annotations

import io
from collections.abc import Iterator

from PIL import ImageChops
from PIL.JpegImagePlugin import JpegImageFile

from vinegrape_handler.errors import UnsupportedFormat
from vinegrape_handler.images.color import Info
from vinegrape_handler.images.kinds import unsupported
from vinegrape_handler.images.time_limit import limit_time

SIGNATURE = b"\xff\xd8\xff"
END = b"\xff\xd9"

# Markers of ITU-T T.81, annex B
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}  # TEM, the restart markers, start of image
_APP0, _APP1, _APP2, _APP14, _APP15, _COMMENT = 0xE0, 0xE1, 0xE2, 0xEE, 0xEF, 0xFE
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC} | {0xF7}

_LOSSLESS = "a lossless JPEG"
_HIERARCHICAL = "a hierarchical JPEG"
_ARITHMETIC = "an arithmetic-coded JPEG"
# The processes that are not supported, by the marker of the frame. libjpeg-turbo decodes lossless JPEGs, but does not
# scale them, and arithmetic-coded ones, but only as a whole, while Pillow passes 64 KB at a time
_PROCESSES = {
    0xC3: _LOSSLESS,
    0xC5: _HIERARCHICAL,
    0xC6: _HIERARCHICAL,
    0xC7: _HIERARCHICAL,
    0xC9: _ARITHMETIC,
    0xCA: _ARITHMETIC,
    0xCB: _ARITHMETIC,
    0xCD: _HIERARCHICAL,
    0xCE: _HIERARCHICAL,
    0xCF: _HIERARCHICAL,
    0xF7: "a JPEG-LS",
}

_EXIF, _ICC = b"Exif\0\0", b"ICC_PROFILE\0"
# The segments that state the colour model: marker, what their content starts with, and its size at least
_COLOUR_MODELS = ((_APP0, b"JFIF\0", 14), (_APP14, b"Adobe", 12))

# If compressed data is missing, a decoder reads these bytes instead: arbitrary values, and each restart marker
_FILLER = b"".join(bytes(range(1, 0xFE)) + b"\xff" + bytes([marker]) for marker in range(0xD0, 0xD8)) * 2
_MAX_COMPARED_PIXELS = 4_000_000


def open_jpeg(data: bytes) -> JpegImageFile:
    """Open a JPEG without decoding it.

    Raises:
        UnsupportedFormat: it is of a kind that Pillow does not decode, or not at every size.
        Exception: of many kinds, from Pillow.
    """
    kind = _unsupported_kind(data)
    if kind:
        raise UnsupportedFormat(unsupported(kind))
    try:
        return JpegImageFile(io.BytesIO(data))  # Image.open would also read the index of an MPO, which may be damaged
    except MemoryError:
        raise
    except Exception:  # metadata may be damaged
        pixels, info = without_metadata(data)
        image = JpegImageFile(io.BytesIO(pixels))
        image.info |= info
        return image


def _unsupported_kind(data: bytes) -> str:
    """Return what kind of JPEG this is, from its frame header, if it is not supported; empty if it is."""
    for marker, start, end in _segments(data):
        if marker in _FRAMES:
            if marker in _PROCESSES:
                return _PROCESSES[marker]
            if end - start >= 6:
                bits, channels = data[start], data[start + 5]
                if bits in (12, 16):
                    return f"a JPEG of {bits} bits"
                if channels not in (1, 3, 4):
                    return f"a JPEG of {channels} channels"
            return ""
    return ""


def without_metadata(data: bytes) -> tuple[bytes, Info]:
    """Separate the pixels of a JPEG file from its metadata.

    Pillow refuses a file for damaged metadata, which viewers ignore.

    Returns:
        The file without comments and application segments, except for valid ones that state the colour model. The
        metadata with the keys of Pillow's `Image.info`: exif, icc_profile.
    """
    info: Info = {}
    kept, profile = [data[:2]], []
    rest = len(data)
    for marker, start, end in _segments(data):
        content = data[start:end]
        if marker == _APP1 and content.startswith(_EXIF):
            info.setdefault("exif", content)
        elif marker == _APP2 and content.startswith(_ICC):
            profile.append(content[len(_ICC) :])
        is_colour_model = any(
            marker == model and content.startswith(name) and len(content) >= size
            for model, name, size in _COLOUR_MODELS
        )
        if is_colour_model or not (_APP0 <= marker <= _APP15 or marker == _COMMENT):
            kept.append(b"\xff" + bytes([marker]) + data[start - 2 : end])
        rest = end
        if marker == _START_OF_SCAN:
            break
    # Each part begins with its number and the number of parts (ICC.1:2022, annex B.4)
    if profile and all(len(part) > 2 and part[1] == len(profile) for part in profile):
        info["icc_profile"] = b"".join(part[2:] for part in sorted(profile))
    return b"".join([*kept, data[rest:]]), info


def add_end(data: bytes) -> bytes:
    """Return a JPEG that ends early with an end marker.

    Raises:
        ValueError: more than the marker is missing.
        Exception: of many kinds, from Pillow.
    """
    data = data.removesuffix(b"\xff")
    # libjpeg replaces missing data by grey, or leaves out details, without an error. If other bytes before the marker
    # change no pixel, the decoder has not needed them
    if ImageChops.difference(_decode_small(data + END), _decode_small(data + _FILLER + END)).getbbox():
        raise ValueError("the file ends early")
    return data + END


def _decode_small(data: bytes) -> JpegImageFile:
    """Decode a JPEG, a large one at a half, a quarter or an eighth of its size."""
    image = open_jpeg(data)
    width, height = image.size
    scale = next((scale for scale in (1, 2, 4) if width * height <= _MAX_COMPARED_PIXELS * scale**2), 8)
    image.draft(None, (max(1, width // scale), max(1, height // scale)))
    limit_time(image)
    image.load()
    return image


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the marker of each segment up to the first scan, and where its content starts and ends."""
    at = 2
    while True:
        at = data.find(b"\xff", at)
        if at < 0:
            return
        while data[at : at + 1] == b"\xff":
            at += 1
        if at >= len(data):
            return
        marker = data[at]
        at += 1
        if marker == 0 or marker in _WITHOUT_LENGTH:
            continue
        if marker == _END_OF_IMAGE:
            return
        length = int.from_bytes(data[at : at + 2], "big")
        if length < 2 or at + length > len(data):
            return
        yield marker, at + 2, at + length
        if marker == _START_OF_SCAN:
            return
        at += length
