"""The window of recent answers, from counters that only grow."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from vinegrape_handler.reference import CONFIDENCE

Counts = Mapping[str, Sequence[float]]
"""By property: the number of answers in each bin."""

_STEPS = 20  # the oldest answers leave the window in this many steps


class _Snapshot(NamedTuple):
    time: float
    answers: float
    counts: Counts


class Window:
    """Keeps the counts of the last answers.

    The window grows to `answers`. Then the oldest answers leave it in steps, so it can be larger by one step and by the
    answers between two calls of `counts`.

    Args:
        answers: how many answers the window has.
        seconds: answers that are older leave it in any case.
        clock: the current time in seconds.
    """

    def __init__(self, answers: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._answers = answers
        self._seconds = seconds
        self._clock = clock
        self._snapshots: deque[_Snapshot] = deque()  # the window contains what was counted after the first one

    def counts(self, total: Counts) -> Counts:
        """Return the counts of the window.

        Args:
            total: the counts of all answers until now. Every answer is counted as `CONFIDENCE`.
        """
        now = _Snapshot(self._clock(), sum(total[CONFIDENCE]), total)
        snapshots = self._snapshots
        if not snapshots:
            snapshots.append(_Snapshot(now.time, 0, {name: [0.0] * len(each) for name, each in total.items()}))
        last = snapshots[-1]
        if now.answers - last.answers >= self._answers / _STEPS or now.time - last.time >= self._seconds / _STEPS:
            snapshots.append(now)
        while len(snapshots) > 1 and self._is_over(snapshots[0], snapshots[1], now):
            snapshots.popleft()
        start = snapshots[0].counts
        return {name: [new - old for new, old in zip(each, start[name], strict=True)] for name, each in total.items()}

    def _is_over(self, start: _Snapshot, following: _Snapshot, now: _Snapshot) -> bool:
        """Return whether the window must begin at the snapshot after its start."""
        return now.answers - following.answers >= self._answers or now.time - start.time > self._seconds
