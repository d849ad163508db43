"""Comparison of a run with its thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vinegrape_loadtests.settings import LoadSettings

if TYPE_CHECKING:
    from locust.stats import StatsEntry

# End of Locust's request type of requests that the server has refused
REFUSED = " refused"

# Share of the due requests that must have been sent. A Locust process that died sends none and reports no failure.
_MIN_ARRIVED = 0.95


@dataclass(frozen=True)
class Threshold:
    """One threshold and its result.

    Attributes:
        name: shown in the table.
        limit: text of the limit.
        measured: text of the measured value.
        passed: whether the limit was met.
    """

    name: str
    limit: str
    measured: str
    passed: bool


def check_thresholds(
    total: StatsEntry, accepted: StatsEntry, errors: int, settings: LoadSettings, run_time_s: float
) -> list[Threshold]:
    """Compare a run with its thresholds.

    Args:
        total: Locust's statistics of all requests.
        accepted: the same without refused requests, whose latencies say nothing about the others; its percentiles
            have two significant digits.
        errors: number of exceptions in the load test itself, and of Locust processes that died.
        settings: the limits.
        run_time_s: seconds for which requests were sent.
    """
    refused = total.num_requests - accepted.num_requests
    return [
        *_arrivals(total, settings, run_time_s),
        _percentile("p95", 0.95, accepted, settings.p95_ms),
        _percentile("p99", 0.99, accepted, settings.p99_ms),
        _ratio("failed", settings.max_failure_ratio, total.num_failures, total),
        _ratio("refused", settings.max_refused_ratio, refused, total),
        _at_least("correct responses", settings.min_right_answers, accepted.num_requests - accepted.num_failures),
        Threshold("errors of the load test", "0", str(errors), errors == 0),
    ]


def format_table(thresholds: list[Threshold]) -> str:
    """Format the thresholds, one per line, and the verdict as the last line."""
    rows = [("threshold", "limit", "measured", "")]
    rows += [(t.name, t.limit, t.measured, "passed" if t.passed else "FAILED") for t in thresholds]
    lines = [f"{name:25}{limit:>18}{measured:>14}  {result}".rstrip() for name, limit, measured, result in rows]
    failed = [t.name for t in thresholds if not t.passed]
    verdict = f"Failed: {', '.join(failed)}." if failed else "Passed: all thresholds were met."
    return "\n".join(["", *lines, "", verdict])


def _arrivals(total: StatsEntry, settings: LoadSettings, run_time_s: float) -> list[Threshold]:
    """In an open loop, whether nearly all due requests were sent; nothing in a closed loop."""
    due = min(settings.arrival_rate * run_time_s, settings.max_requests)
    return [_at_least("arrivals", _MIN_ARRIVED * due, total.num_requests)] if due else []


def _at_least(name: str, limit: float, measured: int) -> Threshold:
    return Threshold(name, f"at least {limit:.0f}", str(measured), measured >= limit)


def _ratio(name: str, limit: float, count: int, total: StatsEntry) -> Threshold:
    ratio = count / total.num_requests if total.num_requests else 0.0
    return Threshold(name, f"at most {limit:.2%}", f"{ratio:.2%}", ratio <= limit)


def _percentile(name: str, share: float, requests: StatsEntry, limit_ms: float) -> Threshold:
    if not requests.num_requests:
        return Threshold(name, f"at most {limit_ms:g} ms", "no request", False)
    measured_ms = requests.get_response_time_percentile(share)
    return Threshold(name, f"at most {limit_ms:g} ms", f"{measured_ms} ms", measured_ms <= limit_ms)
