"""The load over time: all users from the start, and a clean end."""

# mypy: disable-error-code="no-untyped-call"
# Locust does not annotate LoadTestShape

from __future__ import annotations

import math

import gevent
from locust import LoadTestShape
from locust.stats import CSV_STATS_INTERVAL_SEC

from vinegrape_loadtests.current_run import END_MESSAGE, CurrentRun


class TimedLoadShape(LoadTestShape):
    """Start all users at once. When the time is over, send no more requests, but wait for all responses.

    Locust alone would drop the requests in flight, and the counts that other processes have not reported yet.
    """

    use_common_options = True
    _deadline_s = math.inf  # when to stop waiting for responses; set when the time is over

    def reset_time(self) -> None:
        """Start a new run."""
        super().reset_time()
        self._deadline_s = math.inf

    def tick(self) -> tuple[int, float] | None:
        """Return the target user count and the spawn rate; None stops the run."""
        runner, settings = self.runner, CurrentRun.settings
        assert runner is not None  # noqa: S101 (Locust sets it before the first tick)
        options = runner.environment.parsed_options
        assert options is not None  # noqa: S101
        users = (options.num_users, options.num_users)
        if self.get_run_time() < options.run_time and runner.stats.num_requests < settings.max_requests:
            return users
        if self._deadline_s == math.inf:
            self._deadline_s = self.get_run_time() + 2 * settings.timeout_s
            runner.send_message(END_MESSAGE)
        # Other processes report their counts together with their number of users
        if runner.user_count and self.get_run_time() < self._deadline_s:
            return users
        gevent.sleep(CSV_STATS_INTERVAL_SEC + 0.1)  # Locust writes its CSV at this interval, and not at the end
        return None
