"""The images that a caller may pass, and how they are read."""

from __future__ import annotations

import os
from typing import BinaryIO, TypeAlias

from vinegrape_client.errors import TooLarge

Image: TypeAlias = bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryIO
"""An image: its bytes, the path of its file, or a file that is open for reading in binary mode."""


def read_image(image: Image, max_bytes: int) -> bytes:
    """Return the bytes of an image.

    Args:
        image: see `Image`. A text is a path.
        max_bytes: larger files are not read, so that a film in a folder of photos does not fill the memory.

    Raises:
        OSError: the file cannot be read.
        TooLarge: the file has more bytes.
    """
    if isinstance(image, str | os.PathLike):
        with open(image, "rb") as file:  # noqa: PTH123 - also for paths of other types than pathlib's
            return _read(file, max_bytes)
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    return _read(image, max_bytes)


def _read(file: BinaryIO, max_bytes: int) -> bytes:
    data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise TooLarge(f"The file has more than {max_bytes} bytes, the client's max_image_bytes.")
    return data
