"""Watches a server while a fault is tried: its readiness and its memory."""

from __future__ import annotations

import threading
import time

import psutil

from vinegrape_loadtests.chaos.target import Target

_INTERVAL_S = 0.1
_MEMORY_EVERY = 3  # intervals; reading the memory of all processes costs more than a probe


class Watch:
    """A context manager that requests `/readyz` ten times per second, and keeps each change and the highest memory.

    Args:
        target: the server.

    Attributes:
        changes: when the reason changed, in seconds of the monotonic clock, and the reason; "ok" for ready.
        peak_mib: the highest resident memory by kind of process.
    """

    def __init__(self, target: Target) -> None:
        self.changes: list[tuple[float, str]] = []
        self.peak_mib: dict[str, float] = {}
        self._target = target
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def not_ready_after(self, start: float) -> float | None:
        """Return the seconds from a time of the monotonic clock until `/readyz` was not ok; None if it always was."""
        for index, (at, reason) in enumerate(self.changes):
            end = self.changes[index + 1][0] if index + 1 < len(self.changes) else float("inf")
            if reason != "ok" and end > start:
                return max(0.0, at - start)
        return None

    def reasons_since(self, start: float) -> list[str]:
        """Return the different reasons for "not ready" since a time of the monotonic clock."""
        return list(dict.fromkeys(reason for at, reason in self.changes if at >= start and reason != "ok"))

    def _watch(self) -> None:
        count = 0
        while not self._end.wait(_INTERVAL_S):
            before = time.monotonic()
            reason = self._target.probe()
            if not self.changes or self.changes[-1][1] != reason:
                # What was asked at `before` had no answer "ok" from then on
                self.changes.append((before, reason))
            if count % _MEMORY_EVERY == 0:
                self._sample_memory()
            count += 1

    def _sample_memory(self) -> None:
        try:
            for kind, mib in self._target.resident_mib().items():
                self.peak_mib[kind] = max(self.peak_mib.get(kind, 0), mib)
        except psutil.Error:  # a process has just ended
            return
