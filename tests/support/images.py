"""Test images. Some are written byte by byte, because Pillow can read more variants than it can write."""

import io
import struct
import zlib
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")


def encode(image: Image.Image, format_: str, more: Iterable[Image.Image] = (), **options) -> bytes:
    """Encode an image, or an animation of the image and `more` frames.

    It encodes copies, because Pillow's encoders store their options in the image.
    """
    out = io.BytesIO()
    if more:
        options |= {"save_all": True, "append_images": [frame.copy() for frame in more]}
    image.copy().save(out, format_, **options)
    return out.getvalue()


def gradient(width: int = 37, height: int = 23) -> Image.Image:
    """Draw an RGB image of different pixels: red increases to the right, green downwards, blue along the diagonal."""
    y, x = np.mgrid[:height, :width]
    channels = [x * 255 // (width - 1), y * 255 // (height - 1), (x + y) * 255 // (width + height - 2)]
    return Image.fromarray(np.dstack(channels).astype(np.uint8))


def grey(value: int, side: int = 8) -> bytes:
    """Encode a square PNG of one grey value, 0 to 255."""
    return encode(Image.new("L", (side, side), value), "PNG")


def solid(colour: Sequence[int], side: int = 8) -> bytes:
    """Encode a square PNG of one RGB colour, each channel 0 to 255."""
    return encode(Image.new("RGB", (side, side), tuple(colour)), "PNG")


def corners(width: int = 40, height: int = 24) -> np.ndarray:
    """Draw four quarters, uint8 [height, width, 3]: red and green above, blue and black below."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = 255, 0, 0
    pixels[: height // 2, width // 2 :] = 0, 255, 0
    pixels[height // 2 :, : width // 2] = 0, 0, 255
    return pixels


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """Return one chunk of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, depth: int, colour_type: int, rows: bytes, *chunks: bytes) -> bytes:
    """Return the bytes of a PNG file.

    Args:
        width: in pixels.
        height: in pixels.
        depth: bits per channel.
        colour_type: number in the PNG specification: 0 grey, 2 RGB, 6 RGBA.
        rows: the pixels before compression, with a filter byte before each row.
        chunks: chunks to insert before the pixels.
    """
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    parts = (png_chunk(b"IHDR", header), *chunks, png_chunk(b"IDAT", zlib.compress(rows)), png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def big_endian_tiff(pixels: np.ndarray) -> bytes:
    """Return an uncompressed RGB TIFF file with big-endian numbers ("MM"), from uint8 pixels [H, W, 3]."""
    height, width, _ = pixels.shape
    tags = [  # number, type (3: 16 bits, 4: 32 bits), count, value
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 3, 8 + 2 + 9 * 12 + 4),  # offset of the bits per channel, which follow the directory
        (259, 3, 1, 1 << 16),  # not compressed
        (262, 3, 1, 2 << 16),  # RGB
        (273, 4, 1, 8 + 2 + 9 * 12 + 4 + 6),  # offset of the pixels
        (277, 3, 1, 3 << 16),  # channels
        (278, 4, 1, height),  # rows per strip
        (279, 4, 1, pixels.size),  # bytes in the strip
    ]
    directory = struct.pack(">H", len(tags)) + b"".join(struct.pack(">HHII", *tag) for tag in tags)
    return b"MM\x00*" + struct.pack(">I", 8) + directory + bytes(4) + struct.pack(">HHH", 8, 8, 8) + pixels.tobytes()
