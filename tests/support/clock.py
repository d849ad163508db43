"""A clock for tests of what depends on time."""

from __future__ import annotations


class Clock:
    """A clock that is set by hand.

    Attributes:
        seconds: the current time.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds
