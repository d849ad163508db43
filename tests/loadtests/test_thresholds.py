import pytest

from vinegrape_loadtests.settings import LoadSettings
from vinegrape_loadtests.thresholds import Threshold, judge, table

SETTINGS = LoadSettings(p95_ms=100, p99_ms=200, max_failure_ratio=0.01, min_right_answers=90)


class Total:
    """Locust's statistics: its own class would patch this whole process for gevent."""

    def __init__(self, latencies_ms=(50,) * 100, failures=0):
        self.latencies_ms = sorted(latencies_ms)
        self.num_requests, self.num_failures = len(latencies_ms), failures
        self.fail_ratio = failures / len(latencies_ms) if latencies_ms else 0.0

    def get_response_time_percentile(self, share):
        return self.latencies_ms[int(share * len(self.latencies_ms)) - 1]


@pytest.mark.parametrize(
    ("total", "exceptions", "broken"),
    [
        (Total(), 0, []),
        (Total([50] * 95 + [150] * 5), 0, []),
        (Total([50] * 94 + [150] * 6), 0, ["p95"]),
        (Total([50] * 98 + [300] * 2), 0, ["p99"]),
        (Total(failures=1), 0, []),
        (Total(failures=2), 0, ["failed"]),
        (Total([50] * 89), 0, ["right answers"]),
        (Total([]), 0, ["p95", "p99", "right answers"]),
        (Total(), 1, ["errors of the load test"]),
    ],
)
def test_only_what_did_not_hold_is_broken(total, exceptions, broken):
    assert [each.name for each in judge(total, exceptions, SETTINGS, 10) if not each.held] == broken


@pytest.mark.parametrize(("requests", "held"), [(94, False), (95, True), (101, True)])
def test_arrivals_of_an_open_loop_that_were_never_made(requests, held):
    """10 a second for 10 s; a process that died would else only make the run shorter."""
    settings = LoadSettings(arrival_rate=10, min_right_answers=1)
    (arrivals,) = [each for each in judge(Total([50] * requests), 0, settings, 10) if each.name == "arrivals"]
    assert arrivals.held == held


def test_the_table_names_what_held_and_what_did_not():
    lines = table([Threshold("p95", "at most 1 ms", "2 ms", False), Threshold("failed", "0", "0", True)]).splitlines()
    assert [line.split()[-1] for line in lines if line.startswith(("p95", "failed"))] == ["BROKEN", "held"]
    assert lines[-1] == "Failed: p95."
    assert table([Threshold("failed", "0", "0", True)]).splitlines()[-1] == "Passed: every threshold held."
