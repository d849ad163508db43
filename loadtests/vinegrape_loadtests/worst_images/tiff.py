"""TIFF files (TIFF 6.0), little-endian, written tag by tag."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
from PIL import Image

from vinegrape_handler.images.structure.limits import TIFF_BLOCKS, TIFF_TAGS, TIFF_VALUES
from vinegrape_handler.settings import WorkerSettings
from vinegrape_loadtests.images import encode
from vinegrape_loadtests.worst_images import icc, jpeg
from vinegrape_loadtests.worst_images.exif import POINTERS
from vinegrape_loadtests.worst_images.image import HALF, WorstImage, compressed, longest_sides, repeated, square_side

SHORT, LONG = 3, 4  # types of values: 2 and 4 bytes
_FORMATS = {SHORT: "H", LONG: "I"}

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, STRIPS, CHANNELS, ROWS_PER_STRIP, STRIP_BYTES, PLANAR = (
    256, 257, 258, 259, 262, 273, 277, 278, 279, 284
)  # fmt: skip
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 322, 323, 324, 325
_PREDICTOR, _COLOUR_MAP, _EXTRA_SAMPLES = 317, 320, 338
_NONE, _JPEG, _DEFLATE = 1, 7, 8
_GREY, _RGB = 1, 2
_END_ROOM = 4000

Tags = Mapping[int, tuple[int, Sequence[int]]]


def tiff(tags: Tags, data: bytes = b"", *, more: bytes = b"") -> bytes:
    """Return a file with one directory.

    Args:
        tags: type and values by number. Offsets must count from the start of the file, where `data` stands at byte 8.
        data: pixels.
        more: further entries of the directory, 12 bytes each.
    """
    data += bytes(len(data) % 2)
    start = 8 + len(data)
    entries, values = b"", b""
    count = len(tags) + len(more) // 12
    after = start + 2 + 12 * count + 4
    for number, (kind, items) in sorted(tags.items()):
        packed = struct.pack(f"<{len(items)}{_FORMATS[kind]}", *items)
        if len(packed) > 4:
            packed, values = struct.pack("<I", after + len(values)), values + packed
        entries += struct.pack("<HHI", number, kind, len(items)) + packed.ljust(4, b"\0")
    directory = struct.pack("<H", count) + entries + more + bytes(4)
    return b"".join([b"II*\0", struct.pack("<I", start), data, directory, values])


def basic_tags(
    width: int, height: int, channels: int = 1, bits: int = 8, compression: int = _NONE
) -> dict[int, tuple[int, Sequence[int]]]:
    """Return the tags that describe the pixels: grey, RGB or RGBA."""
    tags: dict[int, tuple[int, Sequence[int]]] = {
        WIDTH: (LONG, [width]),
        HEIGHT: (LONG, [height]),
        BITS: (SHORT, [bits] * channels),
        COMPRESSION: (SHORT, [compression]),
        PHOTOMETRIC: (SHORT, [_RGB if channels >= 3 else _GREY]),
        CHANNELS: (SHORT, [channels]),
    }
    return tags | ({_EXTRA_SAMPLES: (SHORT, [2])} if channels == 4 else {})


def in_strips(tags: dict[int, tuple[int, Sequence[int]]], rows: int, strips: Sequence[bytes]) -> bytes:
    """Return a file with these strips, each of `rows` rows; equal strips are stored once."""
    offsets, data = _store(strips)
    sizes = [len(strip) for strip in strips]
    return tiff(tags | {STRIPS: (LONG, offsets), STRIP_BYTES: (LONG, sizes), ROWS_PER_STRIP: (LONG, [rows])}, data)


def in_tiles(tags: dict[int, tuple[int, Sequence[int]]], width: int, height: int, tiles: Sequence[bytes]) -> bytes:
    """Return a file with these tiles of `width` x `height` pixels; equal tiles are stored once."""
    offsets, data = _store(tiles)
    sizes = [len(tile) for tile in tiles]
    layout = {_TILE_WIDTH: (LONG, [width]), _TILE_HEIGHT: (LONG, [height])}
    return tiff(tags | layout | {_TILES: (LONG, offsets), _TILE_BYTES: (LONG, sizes)}, data)


def _store(blocks: Sequence[bytes]) -> tuple[list[int], bytes]:
    """Return the offset of each block in a file, and the bytes of all different blocks."""
    places: dict[bytes, int] = {}
    data = bytearray()
    for block in blocks:
        if block not in places:
            places[block] = 8 + len(data)
            data += block
    return [places[block] for block in blocks], bytes(data)


def worst_tiffs(settings: WorkerSettings) -> Iterator[WorstImage]:
    """Yield the worst TIFF files."""
    side, most, room = square_side(settings), settings.max_image_pixels, settings.max_image_bytes - _END_ROOM
    square = side * side
    plain = int(min(most, room / 4) ** 0.5)
    yield WorstImage("TIFF", "RGBA, plain, 1 strip", plain * plain, partial(_plain, plain))
    for name, mode, compression in (
        ("deflate", "RGBA", "tiff_adobe_deflate"), ("LZW", "RGBA", "tiff_lzw"), ("PackBits", "RGBA", "packbits"),
        ("LZMA", "RGBA", "lzma"), ("Zstandard", "RGBA", "zstd"), ("JPEG", "RGB", "jpeg"),
        ("CCITT group 3", "1", "group3"), ("CCITT group 4", "1", "group4"),
    ):  # fmt: skip
        yield WorstImage("TIFF", f"{mode}, {name}", square, partial(_compressed, mode, side, compression))
    draw = partial(_compressed, "1", side, "group4", noise=True)
    yield WorstImage("TIFF", "1, CCITT group 4, random", square, draw)
    for name, channels, bits in (("RGBA, 16 bits", 4, 16), ("grey, 16 bits", 1, 16), ("grey, 1 bit", 1, 1)):
        yield WorstImage("TIFF", f"{name}, deflate", square, partial(_strip, side, side, channels, bits))
    half = int((most / 2) ** 0.5)
    draw = partial(_strip, half, half, 4, 16)
    yield WorstImage("TIFF", "RGBA, 16 bits, deflate, half the pixels", half * half, draw)
    yield WorstImage("TIFF", "RGBA, planes", square, partial(planes, side, 4))
    longer, shorter = longest_sides(settings)
    sides = {"1 column": (1, most), "1 row": (most, 1), "tallest": (shorter, longer), "widest": (longer, shorter)}
    for name, (width, height) in sides.items():
        yield WorstImage("TIFF", f"RGBA, deflate, {name}", width * height, partial(_strip, width, height, 4, 8))
    rows = min(most, room // 9)
    yield WorstImage("TIFF", "1 column, strips of 1 row", rows, partial(strips_of_rows, 1, rows))
    yield WorstImage("TIFF", "strips of 1 row", square, partial(strips_of_rows, side, side))
    rows = min(longer, room // 10)
    draw = partial(strips_of_rows, shorter, rows)
    yield WorstImage("TIFF", "tallest, strips of 1 row", shorter * rows, draw)
    tiled_side = min(16 * int(TIFF_BLOCKS.most**0.5), side // 16 * 16)
    yield WorstImage(
        "TIFF", "tiles of 16 x 16, as many as accepted", tiled_side * tiled_side, partial(tiled, tiled_side, 16)
    )
    for tile in (16, 64, 256):
        tiled_side = side // tile * tile
        draw = partial(tiled, tiled_side, tile)
        yield WorstImage("TIFF", f"tiles of {tile} x {tile}", tiled_side * tiled_side, draw)
    for channels, name in ((1, "grey"), (4, "RGBA")):
        for tile in (side // 16 * 16, (3 * side + 15) // 16 * 16):
            draw = partial(one_tile, 64, tile, channels)
            yield WorstImage("TIFF", f"64 x 64, {name}, tile of {tile} x {tile}", 64 * 64, draw)
    for name, pixels in kinds(side).items():
        yield WorstImage("TIFF", name, square, partial(one_strip, pixels))
    for mode, channels in (("RGB ", 3), ("CMYK", 4)):
        profile = icc.table_profile(mode.encode(), channels, 9)
        shape = f"{mode.strip()}, profile with a table"
        yield WorstImage("TIFF", shape, side * side, partial(_with_profile, side, channels, profile))
    yield from _directories(side, room)


def _directories(side: int, room: int) -> Iterator[WorstImage]:
    draw = partial(_shared_jpeg, side // 16 * 16, room)
    yield WorstImage("TIFF", "tiles that share one JPEG", (side // 16 * 16) ** 2, draw)
    draw = partial(_pointers_to_itself, min(300, room // 36))
    yield WorstImage("TIFF", "a directory that points to itself", 64, draw)
    draw = partial(_long_pointers, min(TIFF_TAGS.most - 10, room // 24), min(TIFF_VALUES.most - 20, room // 8))
    yield WorstImage("TIFF", "pointers of many numbers", 64, draw)
    yield WorstImage("TIFF", "many pages", 64, partial(_pages, room))
    tags = min(65_000, room // 12)
    yield WorstImage("TIFF", "many tags larger than the file", 64, partial(_many_tags, tags, b"\x01\0\xff\xff\xff\x7f"))
    yield WorstImage(
        "TIFF", "many tags that share a third of the file", 64, partial(_many_tags, tags // 2, None, room // 3)
    )
    draw = partial(_many_tags, min(tags, TIFF_TAGS.most - 10), b"\x01\0\xff\xff\xff\x7f")  # 10: those of an image
    yield WorstImage("TIFF", "tags larger than the file, as many as accepted", 64, draw)
    draw = partial(_many_tags, min(tags // 2, TIFF_TAGS.most - 10), None, room // 3)
    yield WorstImage("TIFF", "tags that share a third of the file, as many as accepted", 64, draw)
    yield WorstImage("TIFF", "one tag of many numbers", 64, partial(_long_tag, room // 4))
    draw = partial(_long_tag, min(room // 4, TIFF_VALUES.most - 20))  # 20: those of an image
    yield WorstImage("TIFF", "one tag of numbers, as many as accepted", 64, draw)


def _plain(side: int) -> bytes:
    return in_strips(basic_tags(side, side, 4), side, [HALF * (4 * side * side)])


def _compressed(mode: str, side: int, compression: str, *, noise: bool = False) -> bytes:
    """Return a file that Pillow has written."""
    image = Image.new(mode, (side, side), 1 if mode == "1" else (128,) * len(mode))
    if noise:
        bits = np.random.default_rng(0).integers(0, 2, (side, side), dtype=np.uint8)
        image = Image.fromarray(255 * bits).convert("1")
    return encode(image, "TIFF", compression=compression)


def _strip(width: int, height: int, channels: int, bits: int) -> bytes:
    pixels = compressed((HALF, (width * channels * bits + 7) // 8 * height))
    return in_strips(basic_tags(width, height, channels, bits, _DEFLATE), height, [pixels])


def kinds(side: int) -> dict[str, dict[int, tuple[int, Sequence[int]]]]:
    """Return the tags of kinds of pixels that are converted after decoding, by name."""
    grey = basic_tags(side, side, 1, 8, _DEFLATE)
    colours = [value % 65536 for value in range(3 * 256)]
    return {
        "white is 0": grey | {PHOTOMETRIC: (SHORT, [0])},
        "white is 0, 16 bits": basic_tags(side, side, 1, 16, _DEFLATE) | {PHOTOMETRIC: (SHORT, [0])},
        "grey, 12 bits": basic_tags(side, side, 1, 12, _DEFLATE),
        "grey, 4 bits": basic_tags(side, side, 1, 4, _DEFLATE),
        "palette": grey | {PHOTOMETRIC: (SHORT, [3]), _COLOUR_MAP: (SHORT, colours)},
        "grey and alpha": basic_tags(side, side, 2, 8, _DEFLATE) | {_EXTRA_SAMPLES: (SHORT, [2])},
        "Lab": basic_tags(side, side, 3, 8, _DEFLATE) | {PHOTOMETRIC: (SHORT, [8])},
        "YCbCr": basic_tags(side, side, 3, 8, _DEFLATE) | {PHOTOMETRIC: (SHORT, [6])},
        "RGB, predictor": basic_tags(side, side, 3, 8, _DEFLATE) | {_PREDICTOR: (SHORT, [2])},
    }


def one_strip(tags: dict[int, tuple[int, Sequence[int]]]) -> bytes:
    """Return a file of one deflated strip, of the size that the tags state."""
    width, height, bits = tags[WIDTH][1][0], tags[HEIGHT][1][0], sum(tags[BITS][1])
    return in_strips(tags, height, [compressed((HALF, (width * bits + 7) // 8 * height))])


def _with_profile(side: int, channels: int, profile: bytes) -> bytes:
    image = Image.new("CMYK" if channels == 4 else "RGB", (side, side), (128,) * channels)
    return encode(image, "TIFF", compression="tiff_adobe_deflate", icc_profile=profile)


def _shared_jpeg(side: int, room: int) -> bytes:
    """Return a file of tiles of 16 x 16 pixels that all are the same progressive JPEG, whose data has no end."""
    tiles = (side // 16) ** 2
    head = jpeg.START + jpeg.progressive_head(16)
    data = head + bytes(max(0, room - 8 * tiles - len(head)))
    return in_tiles(basic_tags(side, side, 1, 8, _JPEG), 16, 16, [data] * tiles)


def _pointers_to_itself(count: int) -> bytes:
    entries = b"".join(struct.pack("<HHII", kind, LONG, 1, 8 + 64) for kind in POINTERS for _ in range(count))
    return _small(entries)


def _long_pointers(count: int, numbers: int) -> bytes:
    """Return a file whose pointers to EXIF data each have as many numbers, which they share."""
    more = struct.pack("<HHII", POINTERS[0], LONG, numbers, 8 + 64) * count
    return _small(more, data=bytes(4 * numbers))


def planes(side: int, channels: int) -> bytes:
    """Return a file whose channels are stored one after the other."""
    tags = basic_tags(side, side, channels, 8, _DEFLATE) | {PLANAR: (SHORT, [2])}
    return in_strips(tags, side, [compressed((HALF, side * side))] * channels)


def strips_of_rows(width: int, height: int) -> bytes:
    """Return a grey file with one strip per row."""
    return in_strips(basic_tags(width, height), 1, [bytes(width)] * height)


def tiled(side: int, tile: int) -> bytes:
    """Return an RGBA file of `side` x `side` pixels in tiles of `tile` x `tile`."""
    count = (-(-side // tile)) ** 2
    return in_tiles(
        basic_tags(side, side, 4, 8, _DEFLATE), tile, tile, [zlib.compress(HALF * (4 * tile * tile))] * count
    )


def one_tile(side: int, tile: int, channels: int) -> bytes:
    """Return a file of `side` x `side` pixels with one tile, which is larger."""
    data = compressed((HALF, channels * tile * tile))
    return in_tiles(basic_tags(side, side, channels, 8, _DEFLATE), tile, tile, [data])


def _small(more: bytes = b"", extra: Tags | None = None, data: bytes = b"") -> bytes:
    tags = basic_tags(8, 8) | {STRIPS: (LONG, [8]), STRIP_BYTES: (LONG, [64]), ROWS_PER_STRIP: (LONG, [8])}
    return tiff({**tags, **(extra or {})}, bytes(64) + data, more=more)


def _pages(room: int) -> bytes:
    """Return a file of as many pages as fit; each is a directory of one tag."""
    first = _small()
    page = struct.pack("<HHHII", 1, WIDTH, SHORT, 1, 8) + bytes(4)
    count = (room - len(first)) // (len(page) + 2)
    data = bytearray(first + bytes(len(first) % 2))
    start = len(data)
    for index in range(count):
        following = start + (index + 1) * len(page) if index + 1 < count else 0
        data += page[:-4] + struct.pack("<I", following)
    at = 8 + 64 + 2 + 12 * 9  # where the first directory ends
    data[at : at + 4] = struct.pack("<I", start)
    return bytes(data)


def _many_tags(count: int, value: bytes | None, shared_bytes: int = 0) -> bytes:
    """Return a file with many private tags.

    Args:
        count: number of tags.
        value: type and count of values of each, which are larger than the file; None: each has `shared_bytes` bytes.
        shared_bytes: bytes that all tags share.
    """
    kind = value or struct.pack("<HI", 7, shared_bytes)
    offset = struct.pack("<I", 8 + 64)
    more = b"".join(struct.pack("<H", 400 + index) + kind + offset for index in range(count))
    return _small(more, data=bytes(shared_bytes))


def with_tags(count: int, shared_bytes: int) -> bytes:
    """Return a small image with `count` private tags that share `shared_bytes` bytes."""
    return _many_tags(count, None, shared_bytes)


def _long_tag(count: int) -> bytes:
    more = struct.pack("<HHII", 60_000, LONG, count, 8 + 64)
    return _small(more, data=repeated(b"\1\0\0\0", 4 * count))
