"""Comparison of a run with its thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vinegrape_loadtests.settings import LoadSettings

if TYPE_CHECKING:
    from locust.stats import StatsEntry


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


def check_thresholds(total: StatsEntry, errors: int, settings: LoadSettings, run_time_s: float) -> list[Threshold]:
    """Compare a run with its thresholds.

    Args:
        total: Locust's statistics of all requests; its percentiles have two significant digits.
        errors: number of exceptions in the load test itself, and of Locust processes that died.
        settings: the limits.
        run_time_s: seconds for which requests were sent.
    """
    return [
        *_arrivals(total, settings, run_time_s),
        _percentile("p95", 0.95, total, settings.p95_ms),
        _percentile("p99", 0.99, total, settings.p99_ms),
        Threshold(
            "failed",
            f"at most {settings.max_failure_ratio:.2%}",
            f"{total.fail_ratio:.2%}",
            total.fail_ratio <= settings.max_failure_ratio,
        ),
        _at_least("correct responses", settings.min_right_answers, total.num_requests - total.num_failures),
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


def _percentile(name: str, share: float, total: StatsEntry, limit_ms: float) -> Threshold:
    if not total.num_requests:
        return Threshold(name, f"at most {limit_ms:g} ms", "no request", False)
    measured_ms = total.get_response_time_percentile(share)
    return Threshold(name, f"at most {limit_ms:g} ms", f"{measured_ms} ms", measured_ms <= limit_ms)
