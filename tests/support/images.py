"""Pictures drawn by code, some of them byte by byte, since Pillow does not write all that it reads."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")


def encode(image, format_, more=(), **options) -> bytes:
    """One image, or several frames, as a file; of copies, since Pillow leaves in an image what its encoder was told."""
    out = io.BytesIO()
    if more:
        options |= {"save_all": True, "append_images": [each.copy() for each in more]}
    image.copy().save(out, format_, **options)
    return out.getvalue()


def gradient(width=37, height=23) -> Image.Image:
    """Red grows to the right, green downwards, blue along the diagonal: no two pixels are alike."""
    y, x = np.mgrid[:height, :width]
    channels = [x * 255 // (width - 1), y * 255 // (height - 1), (x + y) * 255 // (width + height - 2)]
    return Image.fromarray(np.dstack(channels).astype(np.uint8))


def grey(value, side=8) -> bytes:
    """A PNG of one grey."""
    return encode(Image.new("L", (side, side), value), "PNG")


def corners(width=40, height=24) -> np.ndarray:
    """Red upper left, green upper right, blue lower left, black lower right: [height, width, 3]."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = 255, 0, 0
    pixels[: height // 2, width // 2 :] = 0, 255, 0
    pixels[height // 2 :, : width // 2] = 0, 0, 255
    return pixels


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, depth, colour_type, rows: bytes, *chunks: bytes) -> bytes:
    """A PNG by hand: `rows` is what is compressed, a filter byte before each row."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    parts = (png_chunk(b"IHDR", header), *chunks, png_chunk(b"IDAT", zlib.compress(rows)), png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def big_endian_tiff(pixels: np.ndarray) -> bytes:
    """An uncompressed RGB TIFF by hand, with its numbers big-endian ("MM"): [H,W,3]."""
    height, width, _ = pixels.shape
    tags = [  # number, type (3: 16 bits, 4: 32 bits), count, value
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 3, 8 + 2 + 9 * 12 + 4),  # bits a channel stand behind the directory
        (259, 3, 1, 1 << 16),  # not compressed
        (262, 3, 1, 2 << 16),  # RGB
        (273, 4, 1, 8 + 2 + 9 * 12 + 4 + 6),  # where the pixels begin
        (277, 3, 1, 3 << 16),  # channels
        (278, 4, 1, height),  # rows a strip
        (279, 4, 1, pixels.size),  # bytes of the strip
    ]
    directory = struct.pack(">H", len(tags)) + b"".join(struct.pack(">HHII", *tag) for tag in tags)
    return b"MM\x00*" + struct.pack(">I", 8) + directory + bytes(4) + struct.pack(">HHH", 8, 8, 8) + pixels.tobytes()
