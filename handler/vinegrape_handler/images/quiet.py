"""Keep decoders from writing to the log: a file could make them write a line per row or tag."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import warnings
from collections.abc import Iterator

_STDERR = 2


def quiet_warnings() -> None:
    """Let Pillow write no warnings and errors about images in this process."""
    warnings.simplefilter("ignore")
    logging.getLogger("PIL").setLevel(logging.CRITICAL + 1)


class _Stderr:
    """The file descriptor of standard error, which several threads can close for a while."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._saved = -1

    @contextlib.contextmanager
    def closed(self) -> Iterator[None]:
        """Discard what this process writes to standard error, also from C."""
        with self._lock:
            if not self._users:
                self._saved = _redirect()
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users and self._saved >= 0:
                    os.dup2(self._saved, _STDERR)
                    os.close(self._saved)


def _redirect() -> int:
    """Redirect standard error to nowhere. Return a copy of what it was, or -1 if it was closed."""
    try:
        saved = os.dup(_STDERR)
    except OSError:
        return -1
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, _STDERR)
    os.close(null)
    return saved


_stderr = _Stderr()


def quiet_decoder(format_: str | None) -> contextlib.AbstractContextManager[None]:
    """Keep the decoder of a format from writing to standard error.

    Args:
        format_: Pillow's name. Only libtiff writes: each error in a TIFF, one per row for fax codes.
    """
    return _stderr.closed() if format_ == "TIFF" else contextlib.nullcontext()
