"""Console output that tolerates a closed terminal."""

from __future__ import annotations

import os
from typing import TextIO


def write_console(text: str, stream: TextIO) -> None:
    """Write a text and flush the stream. Ignore write errors, such as a closed pipe or a full disk."""
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        # Python flushes the stream at exit and fails if it cannot: send the rest of the buffer to /dev/null
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
