"""The signals that end a server."""

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
    """What Ctrl-C, an orchestrator or a closed terminal asked for.

    Attributes:
        asked: to stop, once what is in flight is answered.
        now: asked a second time.
    """

    asked: threading.Event = field(default_factory=threading.Event)
    now: threading.Event = field(default_factory=threading.Event)

    def ask(self) -> None:
        """Ask to stop; ask again, and it is now."""
        (self.now if self.asked.is_set() else self.asked).set()


@contextlib.contextmanager
def stop_signals() -> Iterator[Stop]:
    """What the signals ask for while the block runs."""
    stop = Stop()

    def handle(_signal: int, _frame: FrameType | None) -> None:
        stop.ask()

    heard = [number for number in _SIGNALS if not _is_nohup(number)]
    before = {number: signal.signal(number, handle) for number in heard}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_nohup(number: int) -> bool:
    """Whether a closed terminal shall not matter, as `nohup` says it."""
    return number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN
