"""JPEG files (ITU-T T.81), segment by segment where Pillow cannot write them."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from PIL import Image

from vinegrape_handler.images.structure.limits import (
    JPEG_EXIF_SEGMENTS,
    JPEG_FILL_BYTES,
    JPEG_SCANS_OF_LARGEST,
    JPEG_SEGMENTS,
)
from vinegrape_handler.settings import WorkerSettings
from vinegrape_loadtests.images import encode
from vinegrape_loadtests.worst_images import icc
from vinegrape_loadtests.worst_images.exif import many_tags, pointers_to_itself
from vinegrape_loadtests.worst_images.image import WorstImage, longest_sides, repeated, square_side

START, END = b"\xff\xd8", b"\xff\xd9"
_LONGEST = 65_500  # pixels of a side, in libjpeg
_APP0, _APP1, _APP2, _COMMENT, _DQT, _DHT, _DRI, _SOF0, _SOF2, _SOS = (
    0xE0, 0xE1, 0xE2, 0xFE, 0xDB, 0xC4, 0xDD, 0xC0, 0xC2, 0xDA
)  # fmt: skip
_LARGEST_SEGMENT = 65_533
_LONGEST_RUN = 0x7FFF  # blocks that one code of a progressive scan can end
_END_ROOM = 2000


def segment(marker: int, content: bytes = b"") -> bytes:
    """Return one segment: marker, length and content."""
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def worst_jpegs(settings: WorkerSettings) -> Iterator[WorstImage]:
    """Yield the worst JPEG files."""
    side, most, room = square_side(settings), settings.max_image_pixels, settings.max_image_bytes - _END_ROOM
    square = side * side
    longest = min(_LONGEST, most)
    longer, shorter = longest_sides(settings)
    for shape, mode, options in (
        ("baseline", "RGB", {"subsampling": "4:2:0"}),
        ("baseline, 4:4:4", "RGB", {"subsampling": "4:4:4"}),
        ("baseline, CMYK", "CMYK", {}),
        ("baseline, restart after each block", "RGB", {"subsampling": "4:4:4", "restart_marker_blocks": 1}),
        ("progressive", "RGB", {"progressive": True, "subsampling": "4:2:0"}),
        ("progressive, 4:4:4", "RGB", {"progressive": True, "subsampling": "4:4:4"}),
        ("progressive, CMYK", "CMYK", {"progressive": True}),
    ):
        yield WorstImage("JPEG", shape, square, partial(_flat, mode, side, side, **options))
        yield WorstImage("JPEG", f"{shape}, random", square, partial(_random, mode, side, room, **options))
    profiles = {"RGB": icc.table_profile(b"RGB ", 3, 17), "CMYK": icc.table_profile(b"CMYK", 4, 9)}
    for mode, profile in profiles.items():
        draw = partial(_flat, mode, shorter, longer, icc_profile=profile)
        yield WorstImage("JPEG", f"baseline, {mode}, tallest, profile with a table", shorter * longer, draw)
    for shape, options in (("baseline", {}), ("progressive", {"progressive": True})):
        sides = {"1 column": (1, longest), "tallest": (shorter, longer), "widest": (longer, shorter)}
        for name, (width, height) in sides.items():
            draw = partial(_flat, "RGB", width, height, subsampling="4:4:4", **options)
            yield WorstImage("JPEG", f"{shape}, {name}", width * height, draw)
    for shape, marker in (("baseline, arithmetic coding", 0xC9), ("progressive, arithmetic coding", 0xCA)):
        draw = partial(_arithmetic, marker, side, progressive=marker == 0xCA)
        yield WorstImage("JPEG", shape, square, draw)
    for scans in (10, JPEG_SCANS_OF_LARGEST - 1, 2 * JPEG_SCANS_OF_LARGEST, 0):
        name = f"{scans} scans" if scans else "scans up to the size limit"
        yield WorstImage("JPEG", f"progressive, grey, {name}", square, partial(many_scans, side, scans, room))
    for components in (3, 4):
        scans = min(JPEG_SCANS_OF_LARGEST - 1, room * 8 // (components * (square // 64 + 2 * side)))
        draw = partial(many_scans_of_all, side, components, scans)
        yield WorstImage("JPEG", f"progressive, {components} components, {scans} scans", square, draw)
    tenth = int((most / 10) ** 0.5)
    scans = 10 * JPEG_SCANS_OF_LARGEST - 10
    draw = partial(many_scans, tenth, scans, room)
    yield WorstImage("JPEG", f"progressive, a tenth of the pixels, {scans} scans", tenth * tenth, draw)
    exif, icc_head = b"Exif\0\0" + bytes(8), b"ICC_PROFILE\0\1\1"
    for shape, part in (
        ("empty APP1 segments", segment(_APP1)),
        ("EXIF segments", segment(_APP1, exif)),
        ("EXIF segments of many tags", segment(_APP1, b"Exif\0\0" + many_tags(5000))),
        ("EXIF segments that point to themselves", segment(_APP1, b"Exif\0\0" + pointers_to_itself(300))),
        ("largest EXIF segments", segment(_APP1, b"Exif\0\0" + bytes(_LARGEST_SEGMENT - 6))),
        ("largest ICC segments", segment(_APP2, icc_head + bytes(_LARGEST_SEGMENT - len(icc_head)))),
        ("XMP segments", segment(_APP1, b"http://ns.adobe.com/xap/1.0/\0")),
        ("Photoshop segments", segment(0xED, b"Photoshop 3.0\x008BIM\4\4\0\0\0\0\0\0")),
        ("multi-picture segments", segment(_APP2, b"MPF\0II*\0\x08\0\0\0\0\0\0\0\0\0")),
        ("comments", segment(_COMMENT)),
        ("fill bytes", b"\xff"),
        ("Huffman tables", segment(_DHT, b"\0" + bytes([0, 1] + [0] * 14) + b"\0")),
        ("quantization tables", segment(_DQT, b"\0" + bytes([1]) * 64)),
    ):
        yield WorstImage("JPEG", f"many {shape}", 64, partial(_between, part, room))
        most_parts = JPEG_FILL_BYTES.most if part == b"\xff" else JPEG_SEGMENTS.most - 10  # 10: those of an image
        most_parts = min(most_parts, JPEG_EXIF_SEGMENTS.most) if part[4:8] == b"Exif" else most_parts
        yield WorstImage("JPEG", f"{shape}, as many as accepted", 64, partial(_between, part, room, most_parts))


def many_scans(side: int, scans: int, room: int) -> bytes:
    """Return a progressive grey JPEG with many scans, each of which visits every block and changes none.

    Args:
        side: width and height in pixels.
        scans: maximum number of scans, at least 2; 0: as many as fit.
        room: bytes that the file may have.
    """
    blocks = ((side + 7) // 8) ** 2
    header = segment(_SOF2, struct.pack(">BHHB", 8, side, side, 1) + bytes([1, 0x11, 0]))
    dc_table = segment(_DHT, b"\x00" + bytes([1] + [0] * 15) + b"\0")  # one code, 0: no difference
    ends = bytes(run << 4 for run in range(15))  # 15 codes of 4 bits: the next 2^n blocks or more have ended
    ac_table = segment(_DHT, b"\x10" + bytes([0, 0, 0, 15] + [0] * 12) + ends)
    dc_scan = _scan(0, 0, 0, 0) + bytes((blocks + 7) // 8)
    first, refining = (_scan(1, 63, high, 1 - high) + _end_of_blocks(blocks) for high in (0, 1))
    start = b"".join([START, segment(_DQT, b"\0" + bytes([1]) * 64), header, dc_table, ac_table, dc_scan, first])
    fitting = repeated(refining, room - len(start) - len(END), scans - 2 if scans else None)
    return b"".join([start, fitting, END])


def progressive_head(side: int) -> bytes:
    """Return what is before the data of the first scan of a progressive grey JPEG, without the start marker."""
    frame = struct.pack(">BHHB", 8, side, side, 1) + bytes([1, 0x11, 0])
    tables = segment(_DQT, b"\0" + bytes([1]) * 64) + segment(_DHT, b"\0" + bytes([1] + [0] * 15) + b"\0")
    return tables + segment(_SOF2, frame) + _scan(0, 0, 0, 0)


def many_scans_of_all(side: int, components: int, scans: int) -> bytes:
    """Return a progressive JPEG whose scans each refine the first coefficient of all components.

    Args:
        side: width and height in pixels.
        components: number of components, all with a sample per pixel.
        scans: number of scans.
    """
    numbers = range(1, components + 1)
    frame = struct.pack(">BHHB", 8, side, side, components) + b"".join(bytes([number, 0x11, 0]) for number in numbers)
    dc_table = segment(_DHT, b"\x00" + bytes([1] + [0] * 15) + b"\0")
    bits = bytes((((side + 7) // 8) ** 2 * components + 7) // 8)
    chosen = bytes([components]) + b"".join(bytes([number, 0]) for number in numbers)
    first, refining = (segment(_SOS, chosen + bytes([0, 0, high << 4 | 1 - high])) + bits for high in (0, 1))
    start = b"".join([START, segment(_DQT, b"\0" + bytes([1]) * 64), segment(_SOF2, frame), dc_table, first])
    return start + refining * (scans - 1) + END


def _scan(start: int, end: int, high: int, low: int) -> bytes:
    """Return the header of a scan of one component: which coefficients, and which of their bits."""
    return segment(_SOS, bytes([1, 1, 0, start, end, high << 4 | low]))


def _end_of_blocks(blocks: int) -> bytes:
    """Return the entropy-coded data that ends this number of blocks."""
    bits = ""
    while blocks:
        run = min(blocks, _LONGEST_RUN)
        size = run.bit_length() - 1
        bits += f"{size:04b}" + (f"{run - (1 << size):0{size}b}" if size else "")
        blocks -= run
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")


def with_exif(room: int) -> bytes:
    """Return a small image with as many EXIF segments as are accepted, as large as fit into `room` bytes together."""
    size = max(20, min(_LARGEST_SEGMENT, room // JPEG_EXIF_SEGMENTS.most) - 10)
    return _between(segment(_APP1, b"Exif\0\0" + bytes(size)), room, JPEG_EXIF_SEGMENTS.most)


def _flat(mode: str, width: int, height: int, **options: object) -> bytes:
    return encode(Image.new(mode, (width, height)), "JPEG", quality=50, **options)


def _random(mode: str, side: int, room: int, **options: object) -> bytes:
    """Return noise with as much quality as the size limit allows."""
    tile = min(side, 1024)
    strength = 256 if mode == "RGB" else 64  # more would exceed the limit at every quality
    noise = np.random.default_rng(0).integers(0, strength, (tile, tile, len(mode)), dtype=np.uint8)
    quality = _best_quality(Image.fromarray(noise, mode), room * tile * tile // (side * side), options)
    times = -(-side // tile)
    pixels = np.ascontiguousarray(np.tile(noise, (times, times, 1))[:side, :side])
    return encode(Image.fromarray(pixels, mode), "JPEG", quality=quality, **options)


def _best_quality(image: Image.Image, room: int, options: dict[str, object]) -> int:
    """Return the highest quality of some at which an image stays within a size, with a reserve of 5 %."""
    qualities: Sequence[int] = (20, 10, 5, 2)  # noise of more has no place in the buffer of Pillow's encoder
    sizes = {quality: len(encode(image, "JPEG", quality=quality, **options)) for quality in qualities}
    return next((quality for quality, size in sizes.items() if 1.05 * size <= room), 1)


def _arithmetic(marker: int, side: int, *, progressive: bool) -> bytes:
    """Return a file whose header states arithmetic coding; its data is then read as other, valid codes."""
    sof = _SOF2 if progressive else _SOF0
    data = _flat("RGB", side, side, progressive=progressive)
    return data.replace(bytes([0xFF, sof]), bytes([0xFF, marker]), 1)


def _between(part: bytes, room: int, most: int | None = None) -> bytes:
    """Insert a segment after the start of a small image, as often as it fits, and at most `most` times."""
    data = _flat("RGB", 8, 8)
    return START + repeated(part, room, most) + data[2:]
