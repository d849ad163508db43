"""Save memory while a WebP is decoded."""

from __future__ import annotations

from typing import Any

from PIL import ImageFile


def release_decoder_early(image: ImageFile.ImageFile) -> None:
    """Let an opened WebP release its decoder as soon as its first frame is decoded.

    The decoder holds two canvases of 4 bytes per pixel. Pillow would keep them while it copies the frame, and after
    that: 16 to 20 bytes per pixel instead of 12.

    Args:
        image: of any format. Others than WebP are not changed.
    """
    webp: Any = image
    decode_frame = getattr(webp, "_get_next", None)
    if decode_frame is None:
        return

    def decode_and_release() -> object:
        frame = decode_frame()
        webp._decoder = None
        return frame

    webp._get_next = decode_and_release
