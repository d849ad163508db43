"""Which thresholds a run held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vinegrape_loadtests.settings import LoadSettings

if TYPE_CHECKING:
    from locust.stats import StatsEntry


# Of what is due; a process of the load test that died sends nothing more, and says nothing either
_ARRIVED = 0.95


@dataclass(frozen=True)
class Threshold:
    """One threshold, as it came out."""

    name: str
    limit: str
    measured: str
    held: bool


def judge(total: StatsEntry, exceptions: int, settings: LoadSettings, run_time_s: float) -> list[Threshold]:
    """Hold a run against its thresholds.

    Args:
        total: Locust's statistics of all requests; its percentiles have two significant digits.
        exceptions: raised by the load test itself.
        settings: the limits.
        run_time_s: seconds of asking.
    """
    right = total.num_requests - total.num_failures
    due = min(settings.arrival_rate * run_time_s, settings.max_requests)
    arrivals = [
        Threshold(
            "arrivals", f"at least {_ARRIVED * due:.0f}", str(total.num_requests), total.num_requests >= _ARRIVED * due
        )
    ]
    return [
        *(arrivals if due else []),
        _percentile("p95", 0.95, total, settings.p95_ms),
        _percentile("p99", 0.99, total, settings.p99_ms),
        Threshold(
            "failed",
            f"at most {settings.max_failure_ratio:.2%}",
            f"{total.fail_ratio:.2%}",
            total.fail_ratio <= settings.max_failure_ratio,
        ),
        Threshold(
            "right answers", f"at least {settings.min_right_answers}", str(right), right >= settings.min_right_answers
        ),
        Threshold("errors of the load test", "0", str(exceptions), exceptions == 0),
    ]


def table(thresholds: list[Threshold]) -> str:
    """The thresholds, a line each, and the verdict."""
    rows = [("threshold", "limit", "measured", "")]
    rows += [(each.name, each.limit, each.measured, "held" if each.held else "BROKEN") for each in thresholds]
    lines = [f"{name:25}{limit:>18}{measured:>14}  {verdict}".rstrip() for name, limit, measured, verdict in rows]
    broken = [each.name for each in thresholds if not each.held]
    verdict = f"Failed: {', '.join(broken)}." if broken else "Passed: every threshold held."
    return "\n".join(["", *lines, "", verdict])


def _percentile(name: str, share: float, total: StatsEntry, limit_ms: float) -> Threshold:
    if not total.num_requests:
        return Threshold(name, f"at most {limit_ms:g} ms", "no request", False)
    measured = total.get_response_time_percentile(share)
    return Threshold(name, f"at most {limit_ms:g} ms", f"{measured} ms", measured <= limit_ms)
