"""When a failed request is sent again, and when a call ends."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from vinegrape_client.errors import DeadlineExceeded, VinegrapeError


@dataclass(frozen=True)
class Retries:
    """How often, and after which delays, a request is sent again.

    Only what may succeed later is sent again: after status 429 or 503, and if the connection fails. A delay is the
    server's Retry-After plus a backoff, which doubles with each failure and is random between a half of its length and
    its whole length. So clients that failed at the same time do not return at the same time.

    Attributes:
        attempts: maximum requests per call, including the first one; 1 means no retries.
        first_backoff_s: the backoff after the first failure, in seconds.
        max_backoff_s: the longest backoff, in seconds.

    Raises:
        ValueError: a value is out of its range.
    """

    attempts: int = 5
    first_backoff_s: float = 0.25
    max_backoff_s: float = 10.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts is {self.attempts}; it must be at least 1.")
        if not 0 <= self.first_backoff_s <= self.max_backoff_s:
            raise ValueError(
                f"first_backoff_s is {self.first_backoff_s} and max_backoff_s is {self.max_backoff_s}; the first must "
                "be at least 0, and not more than the second."
            )

    def delay_s(self, failures: int, retry_after_s: float | None = None) -> float:
        """Return the seconds to wait after this number of failures (at least 1)."""
        backoff_s = min(self.first_backoff_s * 2.0 ** min(failures - 1, 32), self.max_backoff_s)
        return (retry_after_s or 0) + backoff_s * random.uniform(0.5, 1)  # noqa: S311 - no secret


class Attempts:
    """The attempts of one call, which end after a number of requests or a time.

    Args:
        retries: the rules.
        timeout_s: seconds for the whole call.
    """

    def __init__(self, retries: Retries, timeout_s: float) -> None:
        self._retries = retries
        self._timeout_s = timeout_s
        self._ends_at = time.monotonic() + timeout_s
        self._failures = 0

    def remaining_s(self) -> float:
        """Return the seconds that the next request may take.

        Raises:
            DeadlineExceeded: there is no time left.
        """
        remaining_s = self._ends_at - time.monotonic()
        if remaining_s <= 0:
            raise DeadlineExceeded(f"The call was not finished within {self._timeout_s} s.")
        return remaining_s

    def delay_s(self, error: VinegrapeError) -> float:
        """Return the seconds to wait before the next request. Raise the error if there must be no further request."""
        self._failures += 1
        if not error.can_retry or self._failures >= self._retries.attempts:
            raise error
        delay_s = self._retries.delay_s(self._failures, error.retry_after_s)
        if delay_s >= self._ends_at - time.monotonic():
            raise error
        return delay_s
