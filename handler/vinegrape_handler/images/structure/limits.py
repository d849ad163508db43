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

    def check(self, count: int) -> None:
        """Check a number of parts. A caller may stop to count after `most + 1`.

        Raises:
            TooLarge: there are too many.
        """
        if count > self.most:
            raise TooLarge(f"The image has more than {self.most} {self.parts}, which is the maximum.")


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
    32,
    "Cameras write one. Pillow copies all earlier ones for each, so that the time grows with the square.",
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
BMP_RLE_PIXELS = StructureLimit(
    "pixels, and is a run-length encoded BMP",
    10_000_000,
    "Such files are drawings for a screen of at most 8.3 megapixels. Pillow decodes them in Python.",
)
BMP_RLE_BYTES = StructureLimit(
    "bytes, and is a run-length encoded BMP", 5_000_000, "As above: a run of 2 bytes takes up to 0.5 us."
)

# The cost of a scan grows with the pixels, not with the bytes: up to 40 ms at 50 megapixels for 80 bytes. libjpeg's
# own progression has 10 scans (18 for CMYK), and mozjpeg's fewer than 20
JPEG_SCANS_OF_LARGEST = 30
# A decoder's time and memory grow with the bytes per pixel before its own conversion to 8 bits per channel. A photo
# with 16 bits per channel takes more than 2 bytes per pixel in the file, so that 20 MB hold at most 10 megapixels.
DECODED_BYTES_PER_PIXEL = 4

LIMITS = (
    SIDE,
    JPEG_SEGMENTS,
    JPEG_EXIF_SEGMENTS,
    JPEG_FILL_BYTES,
    PNG_CHUNKS,
    TIFF_TAGS,
    TIFF_VALUES,
    TIFF_BLOCKS,
    BMP_RLE_PIXELS,
    BMP_RLE_BYTES,
)


def check_scans(scans: int, pixels: int, max_pixels: int) -> None:
    """Check the work for the scans of a JPEG.

    Args:
        scans: number of scans.
        pixels: width times height.
        max_pixels: maximum pixels of an image, of which `JPEG_SCANS_OF_LARGEST` scans are accepted.

    Raises:
        TooLarge: there are too many scans for this number of pixels.
    """
    most = JPEG_SCANS_OF_LARGEST * max_pixels // max(1, pixels)
    if scans > most:
        raise TooLarge(
            f"The JPEG has more than {most} scans, which is the maximum for {pixels} pixels. Save it with fewer scans."
        )


def check_decoded_bytes(count: int, max_pixels: int) -> None:
    """Check the bytes of an image after decompression, before it is converted to 8 bits per channel.

    Raises:
        TooLarge: there are more than `DECODED_BYTES_PER_PIXEL` for each of `max_pixels`.
    """
    most = DECODED_BYTES_PER_PIXEL * max_pixels
    if count > most:
        raise TooLarge(
            f"The image has {count} bytes of pixels when it is decompressed; at most {most} are accepted. "
            "Send a smaller image, or one with 8 bits per channel."
        )
