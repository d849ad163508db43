"""Keeps a child process of the server running: the gateway, and the edge."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from vinegrape_handler.errors import VinegrapeError
from vinegrape_server.errors import ServeError
from vinegrape_server.host.log import log

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 2.0
_STABLE_S = 30  # a process that has run for this long has started successfully
_MAX_FAILURES = 5


class Process(Protocol):
    """A running child process."""

    @property
    def pid(self) -> int:
        """The process id."""

    def is_running(self) -> bool:
        """Return whether it runs."""

    def check(self) -> None:
        """Check that it runs.

        Raises:
            ServeError: it has ended.
        """

    def stop_gracefully(self) -> None:
        """Ask it to accept nothing new, and to end when it has nothing left to do."""

    def kill(self) -> None:
        """End it at once."""


@runtime_checkable
class Closed(Process, Protocol):
    """A process that starts without accepting connections."""

    def open(self) -> None:
        """Accept connections from now on."""


@runtime_checkable
class Reloading(Process, Protocol):
    """A process that can read changed files again while it runs."""

    def files_changed(self) -> bool:
        """Return whether files differ from those of the last start or reload."""

    def reload(self) -> bool:
        """Read the files again. Return False if they cannot be used; then the process continues with the old ones."""


class Child:
    """A child process that is started again when it ends. As a context manager it kills the process at the end.

    Args:
        name: name of the process in messages and metrics.
        start: starts the process.

    Attributes:
        name: name of the process.
        restarts: how many times it was started again.
    """

    def __init__(self, name: str, start: Callable[[], Process]) -> None:
        self.name = name
        self.restarts = 0
        self._start = start
        self._failures = 0  # in a row
        self._started_at = time.monotonic()
        self._start_at: float | None = None  # when to start the process again
        self._process = start()
        self._is_open = False

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()

    @property
    def process(self) -> Process:
        """The current process."""
        return self._process

    def open(self) -> None:
        """Let the process accept connections, and those that replace it too."""
        self._is_open = True
        if isinstance(self._process, Closed):
            self._process.open()

    def is_current(self) -> bool:
        """Return whether the process has read what it should have read again."""
        return not (isinstance(self._process, Reloading) and self._process.files_changed())

    def keep_running(self) -> None:
        """Start the process again if it has ended, or let it read changed files. Call it several times per second.

        Raises:
            ServeError: it has ended several times soon after its start.
        """
        try:
            self._process.check()
            if isinstance(self._process, Reloading) and self._process.files_changed():
                self._process.reload()
            return
        except ServeError as error:
            reason = str(error)
        now = time.monotonic()
        if self._start_at is None:
            self._failures = 1 if now - self._started_at > _STABLE_S else self._failures + 1
            if self._failures > _MAX_FAILURES:
                raise ServeError(f"{reason} This was the start number {self._failures} in a row that failed.")
            log(f"{reason} It is started again.", "ERROR")
            self._start_at = now + min(_FIRST_WAIT_S * 2 ** (self._failures - 1), _LONGEST_WAIT_S)
        if now >= self._start_at:
            self._start_at, self._started_at = None, now
            self.restarts += 1
            self._process.kill()  # frees what belongs to the ended process
            try:
                self._process = self._start()
                if self._is_open:
                    self.open()
            except (OSError, VinegrapeError) as error:
                log(f"The {self.name} does not start: {error}", "ERROR")
