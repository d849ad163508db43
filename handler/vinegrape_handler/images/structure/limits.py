"""The limits of an image's structure. The largest legal image takes less than 2 s and 600 MB to decode."""

from __future__ import annotations

from dataclasses import dataclass

from vinegrape_handler.errors import TooLarge


@dataclass(frozen=True)
class StructureLimit:
    """The maximum number of some parts of an image.

    Attributes:
        parts: what is counted, in the plural.
        most: the maximum number.
        reason: what real files have, and what more would cost.
    """

    parts: str
    most: int
    reason: str

    def check(self, count: int) -> float:
        """Check a number of parts. A caller may stop counting at `most + 1`.

        Returns:
            The share of the maximum, 0 to 1.

        Raises:
            TooLarge: there are too many.
        """
        if count > self.most:
            raise TooLarge(f"The image has more than {self.most} {self.parts}, which is the maximum.")
        return count / self.most


SIDE = StructureLimit(
    "pixels on its longer side",
    32_767,
    "Panoramas of phones have up to about 20,000, and a WebP at most 16,383. "
    "The memory for resizing grows with the longer side.",
)
JPEG_SEGMENTS = StructureLimit(
    "JPEG segments",
    1_000,
    "A segment holds up to 64 kB, so that 20 MB of metadata fit in 306. Pillow keeps a list of them in Python.",
)
JPEG_EXIF_SEGMENTS = StructureLimit(
    "JPEG segments of EXIF data",
    16,
    "Cameras write one, and 16 hold 1 MB. "
    "Pillow copies all earlier ones for each, so that the time grows with the square.",
)
JPEG_FILL_BYTES = StructureLimit(
    "bytes between its JPEG segments", 65_536, "Encoders write none or a few. Pillow reads them one by one in Python."
)
PNG_CHUNKS = StructureLimit(
    "PNG chunks",
    100_000,
    "Encoders write 4 kB or more of pixels per chunk, which are 5,000 chunks in 20 MB. Pillow takes 3 us for each.",
)
TIFF_TAGS = StructureLimit(
    "tags in one TIFF directory",
    1_000,
    "Scanners and cameras write 15 to 100. Pillow reads each several times in Python.",
)
TIFF_VALUES = StructureLimit(
    "numbers in its TIFF tags",
    500_000,
    "The largest tags are a palette of 16 bits (196,608) and the strips' offsets and sizes. "
    "Pillow makes a Python object of each number.",
)
TIFF_BLOCKS = StructureLimit(
    "TIFF strips or tiles",
    100_000,
    "Files with one row per strip have up to 32,767 per channel. Pillow decodes each with about 10 us of Python.",
)
TIFF_JPEG_SIZES = StructureLimit(
    "times its own size in the JPEGs of a TIFF",
    4,
    "The JPEGs of a TIFF do not overlap, so they are smaller than the file; a damaged size may be larger.",
)
BMP_RLE_PIXELS = StructureLimit(
    "run-length encoded pixels (BMP)",
    5_000_000,
    "Such files are drawings of about the size of a screen. Pillow decodes them in Python.",
)
BMP_RLE_BYTES = StructureLimit(
    "bytes of run-length encoding (BMP)", 2_000_000, "As above: a run of 2 bytes takes up to 1 us."
)

# The cost of a scan grows with the pixels, not with the bytes: up to 40 ms at 50 megapixels for 80 bytes. libjpeg's
# own progression has 10 scans (18 for CMYK), and mozjpeg's fewer than 20
JPEG_SCANS_OF_LARGEST = 30
# To see whether pixels are missing, a JPEG without its end marker is decoded again
DECODINGS_WITHOUT_END = 4
# The time and memory of a decoder grow with the bytes that it decompresses. RGB with 8 bits is accepted up to the
# maximum of pixels, RGBA up to 3/4 and RGBA with 16 bits up to 3/8 of it. Photos stay below: stored without loss, they
# take more than 1 byte per pixel with 8 bits, and more than 3 with 16. So 20 MB hold at most 20 or 7 megapixels.
DECODED_BYTES_PER_PIXEL = 3

LIMITS = (
    SIDE,
    JPEG_SEGMENTS,
    JPEG_EXIF_SEGMENTS,
    JPEG_FILL_BYTES,
    PNG_CHUNKS,
    TIFF_TAGS,
    TIFF_VALUES,
    TIFF_BLOCKS,
    TIFF_JPEG_SIZES,
    BMP_RLE_PIXELS,
    BMP_RLE_BYTES,
)


def check_scans(scans: int, pixels: int, max_pixels: int, has_end: bool = True) -> float:
    """Check the work for the scans of a JPEG.

    Args:
        scans: number of scans.
        pixels: width times height.
        max_pixels: maximum pixels of an image, of which `JPEG_SCANS_OF_LARGEST` scans are accepted.
        has_end: whether the JPEG has its end marker. One without it is decoded up to `DECODINGS_WITHOUT_END` times.

    Returns:
        The share of the maximum, 0 to 1.

    Raises:
        TooLarge: there are too many scans for this number of pixels.
    """
    decodings = 1 if has_end else DECODINGS_WITHOUT_END
    most = JPEG_SCANS_OF_LARGEST * max_pixels // max(1, pixels * decodings)
    if scans > most:
        reason = f"for {pixels} pixels" if has_end else f"for {pixels} pixels without an end marker"
        raise TooLarge(f"The JPEG has more than {most} scans, which is the maximum {reason}. Save it with fewer scans.")
    return scans / max(1, most)


def check_decoded_bytes(count: int, pixels: int, max_pixels: int) -> None:
    """Check the bytes of an image after decompression, before it is converted to 8 bits per channel.

    Args:
        count: the bytes.
        pixels: width times height. An image with too many is refused later, for that reason.
        max_pixels: maximum pixels of an image.

    Raises:
        TooLarge: there are more than `DECODED_BYTES_PER_PIXEL` for each of `max_pixels`.
    """
    most = DECODED_BYTES_PER_PIXEL * max_pixels
    if pixels <= max_pixels and count > most:
        raise TooLarge(
            f"The image has {count} bytes of pixels when it is decompressed; at most {most} are accepted. "
            "Send a smaller image, or one with 8 bits per channel."
        )
