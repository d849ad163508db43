"""Images that are slow, large in memory, or talkative, although the file is small."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping

from PIL import Image

from vinegrape_loadtests.chaos.sockets import post
from vinegrape_loadtests.chaos.trial import Trial

_ANSWERS = {"200", "413", "415", "422", "504"}  # what the image itself may get; the server decides
_SOS, _EOI = b"\xff\xda", b"\xff\xd9"
_SLOW_S = 5  # an image that takes longer must show in /readyz


def slow_images(trial: Trial) -> None:
    """Send images that cost a decoder seconds to hours, one at a time: the other worker serves the others."""
    scans = progressive_jpeg(trial.count(3000, 8000), trial.count(2000, 7000))
    # A worker that is killed meanwhile answers with 503
    slowest = _record(trial, "JPEG of many scans", [post(trial.target.rest, scans, timeout_s=60)], {*_ANSWERS, "503"})
    for name, make in _slow(trial).items():
        slowest = max(slowest, _record(trial, name, [post(trial.target.rest, make(), timeout_s=60)], _ANSWERS))
    trial.note(f"slowest {slowest:.1f} s")
    watch = trial.watch
    if slowest > _SLOW_S and watch is not None:
        not_ready = watch.not_ready_after(trial.start)
        trial.require(
            not_ready is not None and not_ready <= _SLOW_S + 1,
            f"an image took {slowest:.1f} s, and /readyz did not report it within {_SLOW_S} s",
        )


def memory_images(trial: Trial) -> None:
    """Send small files whose pixels, tiles or resizing take gigabytes."""
    images: dict[str, Callable[[], bytes]] = {
        "PNG 1 x 50,000,000": lambda: flat_png(1, 50_000_000),
        "PNG 50,000,000 x 1": lambda: flat_png(50_000_000, 1),
        "TIFF with one tile of 22,000 x 22,000": lambda: tiled_tiff(22_000),
    }
    if trial.long:
        images["WebP lossless 50 MP"] = lambda: _encode(Image.new("RGB", (7071, 7071)), "WEBP", lossless=True)
        images["PNG RGBA 16 bit 7071 x 7071"] = lambda: flat_png(7071, 7071, depth=16)
    for name, make in images.items():
        image = make()
        results = trial.parallel(lambda _, image=image: post(trial.target.rest, image), range(2))  # type: ignore[misc]
        _record(trial, name, results, _ANSWERS)


def talkative_tiff(trial: Trial) -> None:
    """Send TIFF files with 65,000 tags that are wrong, each of which a library would report on standard error."""
    image, count = bad_tags_tiff(65_000), trial.count(3, 20)
    before = trial.target.log_lines()
    for _ in range(count):
        response, _ = post(trial.target.rest, image)
        trial.expect(response.outcome, _ANSWERS)
    lines = trial.target.log_lines() - before
    trial.note(f"{lines} lines in the log for {count} images")
    trial.require(lines <= count, f"{lines} lines in the log for {count} images")


def _slow(trial: Trial) -> Mapping[str, Callable[[], bytes]]:
    megabytes = trial.count(1, 19)
    count = megabytes * 1_000_000
    jpeg = _encode(Image.new("RGB", (64, 64)), "JPEG")
    images: dict[str, Callable[[], bytes]] = {
        "JPEG of many Exif segments": lambda: _insert(
            jpeg, _segment(b"\xe1", b"Exif\0\0" + bytes(64_000)), count // 128_000
        ),
        "JPEG of many empty segments": lambda: _insert(jpeg, b"\xff\xe1\0\2", count // 4),
        "JPEG of many fill bytes": lambda: _insert(jpeg, b"\xff", count),
        "PNG of many chunks": lambda: flat_png(64, 64, extra=_chunk(b"prIv", b"") * (count // 12)),
        "TIFF of strips of one row": lambda: striped_tiff(count // 5),
    }
    if trial.long:
        images["BMP of endless lines"] = lambda: rle_bmp(count)
    return images


def _record(trial: Trial, name: str, results: Iterable[tuple[object, float]], allowed: set[str]) -> float:
    """Count the outcomes of one image; return the longest time."""
    slowest = 0.0
    for response, seconds in results:
        trial.expect(getattr(response, "outcome", ""), allowed, name)
        slowest = max(slowest, seconds)
    return slowest


def progressive_jpeg(scans: int, side: int) -> bytes:
    """Return a JPEG of one grey value whose last scan, which refines each coefficient, occurs many times."""
    image = _encode(Image.new("L", (side, side), 128), "JPEG", progressive=True, quality=90)
    last = image.rindex(_SOS)
    end = image.rindex(_EOI)
    return image[:end] + image[last:end] * scans + _EOI


def flat_png(width: int, height: int, depth: int = 8, extra: bytes = b"") -> bytes:
    """Return an RGBA PNG of one colour.

    Args:
        width: in pixels.
        height: in pixels.
        depth: bits per channel.
        extra: chunks before the pixels.
    """
    row = bytes(1 + width * 4 * depth // 8)
    compressor = zlib.compressobj(1)
    rows_at_once = max(1, 4_000_000 // len(row))
    parts = [compressor.compress(row * min(rows_at_once, height - start)) for start in range(0, height, rows_at_once)]
    pixels = b"".join(parts) + compressor.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + extra + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def tiled_tiff(side: int) -> bytes:
    """Return a grey TIFF of 64 x 64 pixels in one compressed tile that is as large as `side` x `side`."""
    side -= side % 16
    compressor = zlib.compressobj(9)
    tile = b"".join(compressor.compress(bytes(side)) for _ in range(side)) + compressor.flush()
    return _tiff(
        {256: 64, 257: 64, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: _DATA, 325: len(tile)}, tile
    )


def striped_tiff(height: int) -> bytes:
    """Return a grey TIFF of 1 x `height` pixels with one strip per row; the strips' tables make up the file."""
    pixel, tables = b"\x80", 8 * height
    offsets = struct.pack("<I", _DATA_START + tables) * height
    counts = struct.pack("<I", 1) * height
    return _tiff(
        {
            256: 1,
            257: height,
            258: 8,
            259: 1,
            262: 1,
            273: (height, _DATA_START),
            277: 1,
            278: 1,
            279: (height, _DATA_START + 4 * height),
        },
        offsets + counts + pixel,
    )


def bad_tags_tiff(count: int) -> bytes:
    """Return a TIFF of one pixel with `count` further tags whose values lie outside the file."""
    tags: dict[int, int | tuple[int, int]] = {
        256: 1,
        257: 1,
        258: 8,
        259: 1,
        262: 1,
        273: _DATA,
        277: 1,
        278: 1,
        279: 1,
    }
    bad = {
        number: (100_000, 0x7FFFFFF0) for number in range(300, 300 + count) if number not in tags and number < 65_535
    }
    return _tiff({**tags, **bad}, b"\x80")


def rle_bmp(size: int) -> bytes:
    """Return a BMP of 8 bits that is compressed as ends of lines and nothing else, `size` bytes of them."""
    width = height = 4000
    palette = bytes(1024)
    pixels = b"\x01\x00" * (width + 1) + b"\x00\x00" * (size // 2) + b"\x00\x01"
    offset = 14 + 40 + len(palette)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(pixels), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", offset + len(pixels), 0, 0, offset) + info + palette + pixels


# A TIFF's first bytes, then its data, then its directory: the data's place does not depend on the directory's size
_DATA_START = 8
_DATA = (1, _DATA_START)


def _tiff(tags: Mapping[int, int | tuple[int, int]], data: bytes) -> bytes:
    """Return a little-endian TIFF; a tag is a number, or a pair of count and offset."""
    entries = []
    for number in sorted(tags):
        value = tags[number]
        count, content = value if isinstance(value, tuple) else (1, value)
        entries.append(struct.pack("<HHII", number, 4, count, content))
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", _DATA_START + len(data)) + data + directory


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _segment(marker: bytes, content: bytes) -> bytes:
    return b"\xff" + marker + struct.pack(">H", len(content) + 2) + content


def _insert(jpeg: bytes, part: bytes, count: int) -> bytes:
    """Insert a part many times after a JPEG's first marker."""
    return jpeg[:2] + part * count + jpeg[2:]


def _encode(image: Image.Image, format_: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format_, **options)
    return out.getvalue()
