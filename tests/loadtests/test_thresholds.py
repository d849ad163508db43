import pytest

from vinegrape_loadtests.settings import LoadSettings
from vinegrape_loadtests.thresholds import Threshold, check_thresholds, format_table

SETTINGS = LoadSettings(p95_ms=100, p99_ms=200, max_failure_ratio=0.01, max_refused_ratio=0.1, min_right_answers=90)


class Requests:
    """The used part of Locust's statistics. Importing Locust would patch this whole process for gevent."""

    def __init__(self, latencies_ms=(50,) * 100, failures=0):
        self.latencies_ms = sorted(latencies_ms)
        self.num_requests, self.num_failures = len(latencies_ms), failures

    def get_response_time_percentile(self, share):
        return self.latencies_ms[int(share * len(self.latencies_ms)) - 1]


@pytest.mark.parametrize(
    ("requests", "errors", "failed"),
    [
        (Requests(), 0, []),
        (Requests([50] * 95 + [150] * 5), 0, []),
        (Requests([50] * 94 + [150] * 6), 0, ["p95"]),
        (Requests([50] * 98 + [300] * 2), 0, ["p99"]),
        (Requests(failures=1), 0, []),
        (Requests(failures=2), 0, ["failed"]),
        (Requests([50] * 89), 0, ["correct responses"]),
        (Requests([]), 0, ["p95", "p99", "correct responses"]),
        (Requests(), 1, ["errors of the load test"]),
    ],
)
def test_only_thresholds_that_are_not_met_fail(requests, errors, failed):
    assert [t.name for t in check_thresholds(requests, requests, errors, SETTINGS, 10) if not t.passed] == failed


@pytest.mark.parametrize(
    ("accepted", "refused", "failed"),
    [
        (Requests([150] * 10 + [50] * 90), 10, ["p95"]),
        (Requests([50] * 90), 10, []),
        (Requests([50] * 90), 11, ["refused"]),
        (Requests([50] * 80), 8, ["correct responses"]),
    ],
)
def test_refused_requests_are_neither_failures_nor_correct_and_have_no_part_in_the_latencies(accepted, refused, failed):
    total = Requests([*accepted.latencies_ms, *[1] * refused])
    assert [t.name for t in check_thresholds(total, accepted, 0, SETTINGS, 10) if not t.passed] == failed


@pytest.mark.parametrize(("requests", "passed"), [(94, False), (95, True), (101, True)])
def test_an_open_loop_must_send_nearly_all_due_requests(requests, passed):
    """10 per second for 10 s. A Locust process that died sends none and reports no failure."""
    settings = LoadSettings(arrival_rate=10, min_right_answers=1)
    sent = Requests([50] * requests)
    thresholds = check_thresholds(sent, sent, 0, settings, 10)
    assert [t.passed for t in thresholds if t.name == "arrivals"] == [passed]


def test_the_table_shows_which_thresholds_passed_and_failed():
    p95, failed = Threshold("p95", "at most 1 ms", "2 ms", False), Threshold("failed", "0", "0", True)
    lines = format_table([p95, failed]).splitlines()
    assert [line.split()[-1] for line in lines if line.startswith(("p95", "failed"))] == ["FAILED", "passed"]
    assert lines[-1] == "Failed: p95."
    assert format_table([failed]).splitlines()[-1] == "Passed: all thresholds were met."
