"""When users send requests. Latency counts from the time that `next` returns, not from when a user was free to send."""

from __future__ import annotations

import itertools
import time

import gevent
from gevent.event import Event
from gevent.queue import Queue, ShutDown

from vinegrape_handler.errors import SettingError

now = time.perf_counter


class RunEnded(Exception):
    """The run has ended; send no more requests."""


class ClosedLoop:
    """A user sends its next request as soon as it has its response: a slow server gets fewer requests."""

    def __init__(self) -> None:
        self._ended = Event()

    def start(self) -> None:
        """Do nothing: a closed loop needs no start."""

    def next(self) -> float:
        """Return the current time, from which the request's latency counts.

        Raises:
            RunEnded: after `end`.
        """
        if self._ended.is_set():
            raise RunEnded
        return now()

    def pause(self, seconds: float) -> None:
        """Wait for some seconds, or until `end`."""
        self._ended.wait(seconds)

    def end(self) -> list[float]:
        """End the run. No request is left unsent, so the list is empty."""
        self._ended.set()
        return []


class OpenLoop:
    """Requests are due at a constant rate; the next free user sends the one that has waited longest.

    The number of users limits the requests in flight. A request that waits for a user still counts: its latency grows.
    """

    def __init__(self, rate: float, process: int = 0, processes: int = 1) -> None:
        """Take one process's share of the requests.

        Args:
            rate: requests per second, of all processes together.
            process: index of this process; it takes every `processes`-th request.
            processes: number of processes that share the rate.

        Raises:
            SettingError: there are more processes than the master expects.
        """
        if process >= processes:
            raise SettingError(
                f"This is process {process + 1} of {processes}: the rate cannot be shared. "
                "Start the master with --expect-workers and the number of processes."
            )
        self._rate = rate
        self._share = itertools.count(process, processes)
        self._due: Queue[float] = Queue()
        self._feeder: gevent.Greenlet[[], None] | None = None

    def start(self) -> None:
        """Start the schedule; the first request is due now."""
        self._feeder = gevent.spawn(self._feed, now())

    def next(self) -> float:
        """Wait for a request that is due and not yet taken; return the time at which it was due.

        Raises:
            RunEnded: after `end`.
        """
        try:
            due: float = self._due.get()
        except ShutDown:
            raise RunEnded from None
        return due

    def pause(self, seconds: float) -> None:
        """Do nothing: requests are sent independently of responses."""

    @property
    def waiting(self) -> int:
        """Number of requests that are due and not yet taken."""
        return len(self._due)

    def end(self) -> list[float]:
        """End the run; return the due times of requests that were never sent."""
        gevent.kill(self._feeder)
        unsent = list(self._due.queue)
        self._due.shutdown(immediate=True)
        return unsent

    def _feed(self, start: float) -> None:
        for number in self._share:
            due = start + number / self._rate
            gevent.sleep(max(0, due - now()))
            self._due.put(due)
