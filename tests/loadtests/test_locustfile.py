"""Real runs: against the real server, and against stand-ins that are late or wrong."""

import contextlib
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support import stand_in
from tests.support.locust_run import PATIENT, run

LIMITS = ("--p95-ms", "500", "--p99-ms", "900", "--timeout-s", "3", "--min-right-answers", "1")
PNG_OVER_REST = ("RestUser", "--tags", "png")
SHORT = ("--users", "2", "--run-time", "1")


def total(result) -> int:
    return result.requests[("", "Aggregated")]


def grpc_host(server) -> tuple[str, str]:
    return "--grpc-host", f"127.0.0.1:{server.ports['grpc_port']}"


def rest_host(server) -> str:
    return f"http://127.0.0.1:{server.ports['rest_port']}"


def no_server() -> str:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


def test_a_good_server_passes(server, tmp_path):
    result = run(tmp_path, rest_host(server), *grpc_host(server), *PATIENT, "--run-time", "3")
    assert result.code == 0, result.output
    assert result.verdict == "Passed: every threshold held."
    assert result.failures == {}
    requests = result.requests
    assert total(result) == sum(count for (_, name), count in requests.items() if name != "Aggregated") > 0
    assert {transport for transport, _ in requests} == {"POST", "gRPC", ""}
    assert "<html" in result.report.with_suffix(".html").read_text()


@pytest.fixture(scope="module")
def broken(tmp_path_factory) -> dict:
    """A run against each kind of broken server, all at the same time, for they mostly wait."""
    answers = {
        "late": stand_in.late(0.95),
        "wrong": stand_in.wrong,
        "failing": stand_in.failing,
        "hanging": stand_in.late(9),
    }
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(len(answers) + 2) as pool:
        hosts = {name: stack.enter_context(stand_in.standing_in(answer)).url for name, answer in answers.items()}
        hosts["half"] = stack.enter_context(stand_in.standing_in(stand_in.right, withheld=50)).url
        hosts["unasked"] = no_server()
        users = {"unasked": ("--users", "0")}
        runs = {
            name: pool.submit(
                run, tmp_path_factory.mktemp(name), host, *PNG_OVER_REST, *SHORT, *LIMITS, *users.get(name, ())
            )
            for name, host in hosts.items()
        }
        return {name: each.result() for name, each in runs.items()}


@pytest.mark.parametrize(
    ("name", "thresholds", "error"),
    [
        ("late", "p95, p99", None),
        ("wrong", "failed, right answers", "the label is not the most probable class"),
        ("failing", "failed, right answers", "status 500, not 200"),
        ("hanging", "p95, p99, failed, right answers", "3.0 seconds"),
        ("half", "failed, right answers", ""),
        ("unasked", "p95, p99, right answers", None),
    ],
)
def test_a_broken_server_fails_its_thresholds(broken, name, thresholds, error):
    result = broken[name]
    assert result.code == 1, result.output
    for threshold in thresholds.split(", "):
        assert any(line.startswith(threshold) and line.endswith("BROKEN") for line in result.output.splitlines())
        assert threshold in result.verdict
    assert bool(result.failures) == (error is not None)
    assert all(error in text for text in result.failures)


def test_a_run_that_asks_nobody_has_no_requests(broken):
    assert total(broken["unasked"]) == 0


def test_an_open_loop_counts_from_when_a_request_was_due(tmp_path):
    """20 requests a second are due, and the server stalls for 3 s at the first.

    So the 31 that were due in the first 1.5 s took 1.5 s or more, though 4 users can have sent only 4 of them by then.
    """
    with stand_in.standing_in(stand_in.stalling_once(3)) as server:
        load = ("--users", "4", "--arrival-rate", "20", "--run-time", "4")
        result = run(tmp_path, server.url, *PNG_OVER_REST, *PATIENT, *load)
    assert result.code == 0, result.output
    assert sum(count for latency_ms, count in result.latencies_ms.items() if latency_ms >= 1500) >= 31
    assert total(result) == server.asked


def test_what_was_due_and_never_sent_has_failed(tmp_path):
    """One user, who waits longer than the run for its only answer."""
    with stand_in.standing_in(stand_in.late(4)) as server:
        load = ("--users", "1", "--arrival-rate", "10", "--run-time", "2")
        result = run(tmp_path, server.url, *PNG_OVER_REST, *PATIENT, *load)
    unsent = result.requests[("", "not sent")]
    assert server.asked == result.requests[("POST", "png")] == 1
    assert unsent >= 19  # at 0.1 to 1.9 s; the run ends at 2 s or up to a second later
    assert (result.code, result.verdict) == (1, "Failed: failed.")
    assert list(result.failures.values()) == [unsent]


def test_two_processes_count_together(tmp_path):
    with stand_in.standing_in(stand_in.right) as server:
        # of so many arrivals, those that were due before the second process began are too few to break a threshold
        load = ("--users", "4", "--processes", "2", "--arrival-rate", "20", "--run-time", "6")
        result = run(tmp_path, server.url, *PNG_OVER_REST, *PATIENT, *load)
    assert result.code == 0, result.output
    assert "to 2 ready workers" in result.output
    assert total(result) == server.asked > 0


def test_two_processes_ask_over_grpc(server, tmp_path):
    load = ("GrpcUser", "--users", "4", "--processes", "2", "--run-time", "1")
    result = run(tmp_path, rest_host(server), *grpc_host(server), *PATIENT, *load)
    assert result.code == 0, result.output
    assert {transport for transport, _ in result.requests} == {"gRPC", ""}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--p95-ms", "0"), "p95_ms is 0.0; it must be more than 0."),
        (("--p95-ms", "fast"), "invalid float value: 'fast'"),
        (("--host", "127.0.0.1:8080"), "The host is '127.0.0.1:8080'; it must be of the form http://"),
    ],
)
def test_a_setting_that_cannot_be_ends_the_run(tmp_path, options, message):
    result = run(tmp_path, no_server(), *options)
    assert result.code != 0
    assert message in result.output
    assert "Traceback" not in result.output
