"""Write TIFF files value by value, so that a test knows what each pixel must be without asking a decoder."""

import struct
import zlib

import numpy as np

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, MASK, CMYK, YCBCR, LAB = 0, 1, 2, 3, 4, 5, 6, 8
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
NONE, JPEG, DEFLATE, PACKBITS = 1, 7, 8, 32773

_SHORT, _LONG, _UNDEFINED = 3, 4, 7


def tiff(
    values: np.ndarray,
    photometric: int | None,
    bits: int,
    *,
    byte_order: str = "<",
    compression: int = NONE,
    predictor: bool = False,
    planar: bool = False,
    fill_order: int = 1,
    sample_format: int | None = None,
    extra_samples: tuple[int, ...] = (),
    rows_per_strip: int | None = None,
    tile: int | None = None,
    tags: dict[int, tuple[int, list[int] | bytes]] | None = None,
    strips: list[bytes] | None = None,
) -> bytes:
    """Return a TIFF file (TIFF revision 6.0).

    Args:
        values: integers in the range of `bits`, or floats: [H, W] or [H, W, channels].
        photometric: PhotometricInterpretation; None leaves it out.
        bits: per sample.
        byte_order: "<" or ">".
        compression: a constant of this module.
        predictor: store differences between neighbours (8 and 16 bits).
        planar: one plane after the other, instead of one pixel after the other.
        fill_order: 2 reverses the bits of each byte, after compression as in libtiff.
        sample_format: a constant of this module; None leaves it out.
        extra_samples: meaning of the channels beyond those of the colour: 0 unknown, 1 associated alpha, 2 alpha.
        rows_per_strip: None writes one strip.
        tile: width and height of square tiles, in place of strips.
        tags: further tags, or other values of these: number, then type and values.
        strips: compressed data that takes the place of the values.
    """
    values = values[..., None] if values.ndim == 2 else values
    height, width, channels = values.shape
    planes = np.split(values, channels, 2) if planar else [values]
    if tile:
        planes = [np.pad(p, ((0, -height % tile), (0, -width % tile), (0, 0))) for p in planes]
        squares = [
            p[y : y + tile, x : x + tile] for p in planes for y in range(0, height, tile) for x in range(0, width, tile)
        ]
    else:
        rows = rows_per_strip or height
        squares = [p[y : y + rows] for p in planes for y in range(0, height, rows)]
    if predictor:
        squares = [np.concatenate([s[:, :1], np.diff(s.astype(int), axis=1) % (1 << bits)], 1) for s in squares]
    data = strips or [
        _reverse(_compress(_pack(s, bits, byte_order, sample_format), compression), fill_order) for s in squares
    ]
    entries = {
        256: (_LONG, [width]),
        257: (_LONG, [height]),
        258: (_SHORT, [bits] * channels),
        259: (_SHORT, [compression]),
        266: (_SHORT, [fill_order]),
        277: (_SHORT, [channels]),
        284: (_SHORT, [2 if planar else 1]),
        **({} if photometric is None else {262: (_SHORT, [photometric])}),
        **({317: (_SHORT, [2])} if predictor else {}),
        **({} if sample_format is None else {339: (_SHORT, [sample_format] * channels)}),
        **({338: (_SHORT, list(extra_samples))} if extra_samples else {}),
        **({322: (_LONG, [tile]), 323: (_LONG, [tile])} if tile else {278: (_LONG, [rows_per_strip or height])}),
        (325 if tile else 279): (_LONG, [len(part) for part in data]),
        (324 if tile else 273): (_LONG, [0] * len(data)),
        **(tags or {}),
    }
    return _write(entries, data, byte_order)


def _write(entries: dict[int, tuple[int, list[int] | bytes]], data: list[bytes], byte_order: str) -> bytes:
    """Write header, directory, the values that do not fit into it, and the pixels."""
    at_values = 8 + 2 + 12 * len(entries) + 4
    sizes = {tag: len(_encode(*value, byte_order)) for tag, value in entries.items()}
    at_data = at_values + sum(size + size % 2 for size in sizes.values() if size > 4)
    for tag in (273, 324):
        if tag in entries:
            entries[tag] = (_LONG, list(np.cumsum([at_data] + [len(part) for part in data[:-1]])))
    directory, values = struct.pack(byte_order + "H", len(entries)), b""
    for tag, (type_, numbers) in sorted(entries.items()):
        content = _encode(type_, numbers, byte_order)
        directory += struct.pack(byte_order + "HHI", tag, type_, len(numbers))
        if len(content) > 4:
            directory += struct.pack(byte_order + "I", at_values + len(values))
            values += content + bytes(len(content) % 2)
        else:
            directory += content.ljust(4, b"\0")
    magic = b"II*\0" if byte_order == "<" else b"MM\0*"
    return magic + struct.pack(byte_order + "I", 8) + directory + bytes(4) + values + b"".join(data)


def _encode(type_: int, numbers: list[int] | bytes, byte_order: str) -> bytes:
    if isinstance(numbers, bytes):
        return numbers
    return struct.pack(f"{byte_order}{len(numbers)}{'H' if type_ == _SHORT else 'I'}", *map(int, numbers))


def _pack(values: np.ndarray, bits: int, byte_order: str, sample_format: int | None) -> bytes:
    """Pack rows; each begins at a byte."""
    if sample_format == FLOAT:
        return values.astype(f"{byte_order}f{bits // 8}").tobytes()
    if bits in (8, 16, 32):
        return (values.astype(np.int64) % (1 << bits)).astype(f"{byte_order}u{bits // 8}").tobytes()
    rows = values.reshape(len(values), -1, 1).astype(int) >> np.arange(bits)[::-1] & 1
    return np.packbits(rows.reshape(len(values), -1).astype(np.uint8), axis=1).tobytes()


def _reverse(data: bytes, fill_order: int) -> bytes:
    if fill_order == 1:
        return data
    return np.packbits(np.unpackbits(np.frombuffer(data, np.uint8)), bitorder="little").tobytes()


def _compress(data: bytes, compression: int) -> bytes:
    if compression == DEFLATE:
        return zlib.compress(data)
    if compression == PACKBITS:
        parts = [data[at : at + 128] for at in range(0, len(data), 128)]
        return b"".join(bytes([len(part) - 1]) + part for part in parts)
    return data
