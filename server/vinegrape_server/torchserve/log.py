"""TorchServe's log, held back until it is known whether anybody needs it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable

from vinegrape_handler.contract import START_FAILED
from vinegrape_server.host.console import say

# Said at every start: by Java of TorchServe's libraries, of every machine without a GPU, before anything works
_CHATTER = ("WARNING: ", "Picked up JAVA_TOOL_OPTIONS: ", "nvidia-smi not available", "Model server started.")
_LAST_WORDS_S = 10


class TorchServeLog:
    """Passes lines on to standard error; those before `release` wait, for a reason may make them needless.

    Attributes:
        failure: why a worker could not start, if one has said so before `release`.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self.failure = ""
        self._lines = lines
        self._held: list[str] | None = []
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._forward, daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Print what waits, and from now on every line as it comes."""
        with self._lock:
            say("".join(self._held or ()), sys.stderr)
            self._held = None

    def wait_for_end(self) -> None:
        """Return once the last line has come; give up after a while, in case somebody else keeps it open."""
        self._thread.join(_LAST_WORDS_S)

    def _forward(self) -> None:
        for line in self._lines:
            if line.startswith(_CHATTER):
                continue
            _, failed, reason = line.rstrip("\n").partition(START_FAILED)
            with self._lock:
                if self._held is None:
                    say(line, sys.stderr)
                elif failed:
                    self.failure = self.failure or reason
                else:
                    self._held.append(line)
