"""The signals that stop a server."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Stop:
    """A request to stop the server, from Ctrl-C, an orchestrator or a closed terminal.

    Attributes:
        requested: set by the first signal. The server stops once the requests in flight have their responses.
        immediate: set by the second signal. The server stops at once.
    """

    requested: threading.Event = field(default_factory=threading.Event)
    immediate: threading.Event = field(default_factory=threading.Event)

    def request(self) -> None:
        """Request a stop. The second call requests an immediate stop."""
        (self.immediate if self.requested.is_set() else self.requested).set()


@contextlib.contextmanager
def stop_signals() -> Iterator[Stop]:
    """Handle SIGINT, SIGTERM and SIGHUP while the block runs.

    SIGHUP stays ignored if it is ignored already: `nohup` does this to protect a process from a closed terminal.
    """
    stop = Stop()

    def handle(_signal: int, _frame: FrameType | None) -> None:
        stop.request()

    handled = [number for number in _SIGNALS if not _is_ignored_by_nohup(number)]
    previous = {number: signal.signal(number, handle) for number in handled}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _is_ignored_by_nohup(number: int) -> bool:
    return number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN
