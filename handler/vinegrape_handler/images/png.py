"""Read the metadata of a PNG file, and pass Pillow only the chunks that it needs."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator

from PIL import Image, ImageFile

from vinegrape_handler.errors import UnsupportedFormat
from vinegrape_handler.images.color import MAX_PROFILE_BYTES, Info
from vinegrape_handler.images.kinds import unsupported

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_GREY, _RGB, _PALETTE = 0, 2, 3  # colour types of the header
_USED = {b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"eXIf", b"iTXt", b"tRNS"}
_XMP = b"XML:com.adobe.xmp"
_MAX_XMP_BYTES = 1 << 20  # Photoshop's notes about each step may have many megabytes


def open_png(data: bytes) -> ImageFile.ImageFile:
    """Open a PNG without decoding it.

    Raises:
        UnsupportedFormat: Xcode has changed it for iOS; then it has other pixels than a PNG.
        Exception: of many kinds, from Pillow.
    """
    if data[12:16] == b"CgBI":
        raise UnsupportedFormat(unsupported("a PNG for iOS (CgBI)"))
    pixels, info = read_metadata(data)
    image = Image.open(io.BytesIO(pixels), formats=("PNG",))
    image.info |= info
    return image


def read_metadata(data: bytes) -> tuple[bytes, Info]:
    """Separate the pixels of a PNG file from its metadata.

    Pillow refuses a file for damaged or large metadata. Viewers ignore such chunks, as libpng does: an ancillary chunk
    with a wrong checksum or an invalid content has no effect. Names and contents of the chunks are those of the PNG
    specification, third edition.

    Args:
        data: the file, which starts with `SIGNATURE`.

    Returns:
        The file with its critical chunks and a valid tRNS only; `data` itself if it has no others. And the metadata
        with the keys of Pillow's `Image.info`: icc_profile, srgb, gamma, chromaticity, exif, xmp, transparency; and
        cicp, the four numbers of the chunk cICP.
    """
    info: Info = {}
    kept: list[bytes] = []
    seen: set[bytes] = set()
    start = 0
    for kind, at, end in _chunks(data):
        if kind[0] & 0x20 == 0:  # an upper-case letter: a critical chunk
            seen.add(kind)
            continue
        # Of several equal chunks the first counts. Chunks about the pixels stand before them
        if kind in _USED and kind not in seen and (b"IDAT" not in seen or kind in (b"eXIf", b"iTXt")):
            content = data[at + 8 : end - 4]
            if zlib.crc32(content, zlib.crc32(kind)) == int.from_bytes(data[end - 4 : end], "big"):
                found = _read(kind, content, data[24], data[25])
                info |= found
                if found:
                    seen.add(kind)
                if "transparency" in found:
                    continue
        kept.append(data[start:at])
        start = end
    if not kept:
        return data, info
    return b"".join([*kept, data[start:]]), info


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind, the start and the end of each whole chunk; the decoder judges what follows them."""
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        kind = data[at + 4 : at + 8]
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data) or not kind.isalpha():
            return
        yield kind, at, end
        at = end


def _read(kind: bytes, content: bytes, depth: int, colour_type: int) -> Info:
    """Read one ancillary chunk; what is invalid or not used is left out."""
    match kind, len(content):
        case b"cICP", 4:
            return {"cicp": tuple(content)}
        case b"iCCP", _:
            _, _, compressed = content.partition(b"\0")
            profile = _inflate(compressed[1:], MAX_PROFILE_BYTES) if compressed[:1] == b"\0" else b""
            return {"icc_profile": profile} if profile else {}
        case b"sRGB", 1:
            return {"srgb": content[0]}
        case b"gAMA", 4:
            return {"gamma": int.from_bytes(content, "big") / 100_000}
        case b"cHRM", 32:
            numbers = (int.from_bytes(content[at : at + 4], "big") for at in range(0, 32, 4))
            return {"chromaticity": tuple(number / 100_000 for number in numbers)}
        case b"eXIf", _:
            return {"exif": b"Exif\0\0" + content}
        case b"iTXt", _:
            xmp = _read_xmp(content)
            return {"xmp": xmp} if xmp else {}
        case b"tRNS", length:
            return _read_transparency(content, length, depth, colour_type)
    return {}


def _read_transparency(content: bytes, length: int, depth: int, colour_type: int) -> Info:
    """Read the transparent grey value, colour or palette entries, in the values that Pillow decodes to."""
    numbers = [int.from_bytes(content[at : at + 2], "big") for at in range(0, length, 2)]
    if colour_type == _GREY and length == 2:
        # Pillow decodes 1, 2 and 4 bits to 8, and keeps 16
        return {"transparency": numbers[0] * 255 // ((1 << depth) - 1) if depth < 8 else numbers[0]}
    if colour_type == _RGB and length == 6:
        return {"transparency": tuple(number >> 8 if depth == 16 else number for number in numbers)}
    if colour_type == _PALETTE and 0 < length <= 256:
        return {"transparency": content}
    return {}


def _read_xmp(content: bytes) -> bytes:
    """Return the XMP of an iTXt chunk, which may hold the orientation; empty if it is something else or too long."""
    keyword, _, rest = content.partition(b"\0")
    parts = rest[2:].split(b"\0", 2)  # language, translated keyword, text
    if keyword != _XMP or len(parts) < 3:
        return b""
    if rest[0]:
        return _inflate(parts[2], _MAX_XMP_BYTES) if rest[1] == 0 else b""
    return parts[2] if len(parts[2]) <= _MAX_XMP_BYTES else b""


def _inflate(compressed: bytes, max_bytes: int) -> bytes:
    """Decompress; empty if the data is damaged or has more than max_bytes."""
    decompressor = zlib.decompressobj()
    try:
        result = decompressor.decompress(compressed, max_bytes)
    except zlib.error:
        return b""
    return result if decompressor.eof else b""
