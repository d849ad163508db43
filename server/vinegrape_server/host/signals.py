"""The signals that stop a server."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# systemd can send SIGHUP right after SIGTERM, and Ctrl-C reaches a server both from the terminal and from `make`
_DUPLICATE_S = 1.0


class Stop:
    """A request to stop the server, from Ctrl-C, an orchestrator or a closed terminal.

    Args:
        duplicate_s: seconds after the first signal within which further signals count as the same one.

    Attributes:
        requested: set by the first signal. The server stops once the requests in flight have their responses.
        immediate: set by a later signal. The server stops at once.
    """

    def __init__(self, duplicate_s: float = _DUPLICATE_S) -> None:
        self.requested = threading.Event()
        self.immediate = threading.Event()
        self._duplicate_s = duplicate_s
        self._requested_at = 0.0

    def request(self) -> None:
        """Request a stop. A later call requests an immediate stop, unless it is a duplicate of the first."""
        if not self.requested.is_set():
            self._requested_at = time.monotonic()
            self.requested.set()
        elif time.monotonic() - self._requested_at >= self._duplicate_s:
            self.immediate.set()


@contextlib.contextmanager
def stop_signals(duplicate_s: float = _DUPLICATE_S) -> Iterator[Stop]:
    """Handle SIGINT, SIGTERM and SIGHUP while the block runs; see `Stop`.

    After a stop they are ignored: the process is about to end, and a further signal must not change its exit code.

    SIGHUP stays ignored if it is ignored already: `nohup` does this to protect a process from a closed terminal.
    """
    stop = Stop(duplicate_s)

    def handle(_signal: int, _frame: FrameType | None) -> None:
        stop.request()

    handled = [number for number in _SIGNALS if not _is_ignored_by_nohup(number)]
    previous = {number: signal.signal(number, handle) for number in handled}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_IGN if stop.requested.is_set() else handler)


def _is_ignored_by_nohup(number: int) -> bool:
    return number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN
