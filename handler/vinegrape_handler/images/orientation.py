"""Turn an image upright, as its EXIF orientation specifies."""

from __future__ import annotations

from PIL import ExifTags, Image

from vinegrape_handler.errors import TooLarge
from vinegrape_handler.images.structure.tiff import check_exif

# What turns an image upright, by the value of the tag Orientation (EXIF 3.0, 4.6.5.1)
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def apply_orientation(image: Image.Image) -> Image.Image:
    """Rotate or mirror an image as its EXIF orientation specifies.

    Pillow's `exif_transpose` would also write the EXIF data again, which takes 34 s for 20 MB of numbers.

    Raises:
        TooLarge: the EXIF data exceeds a limit.
    """
    try:
        check_exif(image.info.get("exif", b""))
        transposition = _TRANSPOSITIONS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (MemoryError, TooLarge):
        raise
    except Exception:  # a damaged EXIF block must not fail a good image
        return image
    return image if transposition is None else image.transpose(transposition)
