"""TorchServe's log. It is held back during the start, so that a failed start prints one line only."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from vinegrape_handler.contract import START_FAILED
from vinegrape_server.host.log import forward

# Lines of every start: Java's warnings about TorchServe's libraries, and the missing nvidia-smi on a CPU machine.
# "Model server started." comes before any worker is ready.
_IGNORED = ("WARNING: ", "Picked up JAVA_TOOL_OPTIONS: ", "nvidia-smi not available", "Model server started.")
_END_TIMEOUT_S = 10


class TorchServeLog:
    """Forwards TorchServe's log to standard error. Lines before `release` are held back.

    Args:
        lines: the lines of TorchServe's output; read in a thread until they end.

    Attributes:
        failure: the first reason for a failed start that a worker logs before `release`; empty if there is none.
        later_failure: the last reason that a worker has logged after `release`; empty if there is none. A swap of the
            model empties it before it starts workers.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self.failure = self.later_failure = ""
        self._lines = lines
        self._held: list[str] | None = []
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._forward, daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Print the lines held back, and from now on print each line at once."""
        with self._lock:
            for line in self._held or ():
                forward(line)
            self._held = None

    def wait_for_end(self) -> None:
        """Wait for the last line, but at most 10 s, because a child of TorchServe may keep the output open."""
        self._thread.join(_END_TIMEOUT_S)

    def _forward(self) -> None:
        for line in self._lines:
            if line.startswith(_IGNORED):
                continue
            _, failed, reason = line.rstrip("\n").partition(START_FAILED)
            with self._lock:
                if self._held is None:
                    self.later_failure = reason if failed else self.later_failure
                    forward(line)
                elif failed:
                    self.failure = self.failure or reason
                else:
                    self._held.append(line)
