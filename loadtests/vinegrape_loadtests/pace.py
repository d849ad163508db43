"""When users ask. A latency counts from the moment that `next` gives, not from when somebody was free to send."""

from __future__ import annotations

import itertools
import time

import gevent
from gevent.queue import Queue, ShutDown

from vinegrape_handler.errors import SettingError

now = time.perf_counter


class Ended(Exception):
    """No request shall be sent any more."""


class ClosedLoop:
    """A user asks as soon as it is answered: a slow server is asked less."""

    def __init__(self) -> None:
        self._ended = False

    def start(self) -> None:
        """Nothing to start."""

    def next(self) -> float:
        """The moment from which the request counts: now.

        Raises:
            Ended: after `end`.
        """
        if self._ended:
            raise Ended
        return now()

    def end(self) -> list[float]:
        """End; nothing is ever left unsent."""
        self._ended = True
        return []


class OpenLoop:
    """Requests arrive at a constant rate; the next free user sends the one that has waited longest.

    So users are the most requests in flight, and what waits for a user is not forgotten: its latency grows.
    """

    def __init__(self, rate: float, process: int = 0, processes: int = 1) -> None:
        """Take a process's share of the arrivals.

        Args:
            rate: arrivals a second, of all processes together.
            process: number of this one, from 0; it takes every `processes`-th arrival.
            processes: that share the rate.

        Raises:
            SettingError: more processes than the master was told to expect.
        """
        if process >= processes:
            raise SettingError(
                f"This is process {process + 1} of {processes}: the rate cannot be shared. "
                "Give the master --expect-workers, the number of processes."
            )
        self._rate = rate
        self._share = itertools.count(process, processes)
        self._due: Queue[float] = Queue()
        self._feeder: gevent.Greenlet[[], None] | None = None

    def start(self) -> None:
        """Let the first request arrive."""
        self._feeder = gevent.spawn(self._feed, now())

    def next(self) -> float:
        """Wait for an arrival that nobody has taken; gives the moment at which it was due.

        Raises:
            Ended: after `end`.
        """
        try:
            due: float = self._due.get()
        except ShutDown:
            raise Ended from None
        return due

    @property
    def waiting(self) -> int:
        """Arrivals that are due and nobody has taken."""
        return len(self._due)

    def end(self) -> list[float]:
        """Let nothing arrive any more; gives the moments of what was due and never taken."""
        gevent.kill(self._feeder)
        unsent = list(self._due.queue)
        self._due.shutdown(immediate=True)
        return unsent

    def _feed(self, start: float) -> None:
        for number in self._share:
            due = start + number / self._rate
            gevent.sleep(max(0, due - now()))
            self._due.put(due)
