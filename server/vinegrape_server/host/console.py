"""Words to whoever started the server, who may have gone."""

from __future__ import annotations

import os
from typing import TextIO


def say(text: str, stream: TextIO) -> None:
    """Write and flush; where nobody reads any more, or nothing more fits, go on without words."""
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        # What is left in the buffer must go somewhere, or Python's own exit fails with it
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
