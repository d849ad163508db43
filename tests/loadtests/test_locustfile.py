"""Real Locust runs: against a real server, and against stand-ins that are late or wrong."""

import contextlib
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import program
from tests.support import stand_in
from tests.support.locust_run import PATIENT, LocustRun, run_locust
from vinegrape_loadtests.local.server import free_port, serving
from vinegrape_server.host.http import Address, get

pytestmark = [pytest.mark.live, pytest.mark.xdist_group("timing")]

LIMITS = ("--p95-ms", "500", "--p99-ms", "900", "--timeout-s", "3", "--min-right-answers", "1")
PNG_OVER_REST = ("RestUser", "--tags", "png")

# Name of a run: the stand-in's responses, and the options
RUNS = {
    "broken": (
        stand_in.in_turn(stand_in.wrong, stand_in.failing, stand_in.truncated, stand_in.late(9)),
        (*LIMITS, "--users", "4", "--run-time", "1"),
    ),
    "late": (stand_in.late(0.95), (*LIMITS, "--users", "2", "--run-time", "1")),
    "stalled": (
        stand_in.stalling_once(3),
        (*PATIENT, "--users", "4", "--arrival-rate", "20", "--run-time", "4"),
    ),
    "refusing": (
        stand_in.in_turn(stand_in.correct, stand_in.refusing(retry_after=600)),
        (*PATIENT, "--users", "2", "--run-time", "1", "--max-refused-ratio", "0.6"),
    ),
    "unsent": (stand_in.late(4), (*PATIENT, "--users", "1", "--arrival-rate", "10", "--run-time", "2")),
    "bad setting": (stand_in.correct, ("--p95-ms", "0")),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, tuple[LocustRun, int]]:
    """Each run by name, with the number of requests that its stand-in received. They run at once: they mostly wait."""
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(len(RUNS)) as pool:
        servers = {name: stack.enter_context(stand_in.stand_in(respond)) for name, (respond, _) in RUNS.items()}
        started = {
            name: pool.submit(
                run_locust, tmp_path_factory.mktemp("locust"), servers[name].url, *PNG_OVER_REST, *options
            )
            for name, (_, options) in RUNS.items()
        }
        return {name: (future.result(), servers[name].requests) for name, future in started.items()}


def failed_rows(result: LocustRun) -> list[str]:
    """Rows of the thresholds' table that failed."""
    return [line for line in result.output.splitlines() if line.endswith("FAILED")]


def test_two_processes_load_a_real_server_over_rest_and_grpc(tiny_archive, tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VINEGRAPE_")}
    # Ends after 40 requests, so that on a busy machine the second process may start late. Unsent requests are allowed.
    load = ("--users", "8", "--processes", "2", "--arrival-rate", "20", "--max-requests", "40", "--run-time", "30")
    load = (*load, "--max-failure-ratio", "0.9")
    with serving(
        "--archive", str(tiny_archive), "--workers", "1", environment=environment, stdout=subprocess.DEVNULL
    ) as server:
        result = run_locust(tmp_path, server.rest_url, "--grpc-host", server.grpc_address, *PATIENT, *load)
        metrics = get(Address("127.0.0.1", server.ports["operations_port"]), "/metrics", timeout_s=10).body.decode()
    assert result.code == 0, result.output
    assert result.verdict == "Passed: all thresholds were met."
    assert all("every user was still waiting for a response" in message for message in result.failures)
    assert "to 2 ready workers" in result.output
    assert {transport for transport, _ in result.requests} == {"POST", "gRPC", ""}
    counted = sum(
        sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == "vinegrape_requests_total"
    )
    assert result.total - sum(result.failures.values()) == counted > 0
    assert "<html" in result.report.with_suffix(".html").read_text()


@pytest.fixture
def certificate(tmp_path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that is its own authority, and its key."""
    files = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = [program("openssl", "openssl"), "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt"]
    command += ["ec_paramgen_curve:P-256", "-days", "1", "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-out", files[0], "-keyout", files[1]], check=True, capture_output=True)
    return files


@pytest.mark.tools
def test_users_send_their_key_over_tls_to_the_one_port_of_the_edge(tiny_archive, tmp_path, monkeypatch, certificate):
    program("haproxy", "haproxy")
    keys = tmp_path / "keys.txt"
    keys.write_text("load-test correct-key-of-the-load-test\n")
    options = ("--edge", "--archive", str(tiny_archive), "--workers", "1", "--api-keys", str(keys))
    tls = ("--tls-certificate", str(certificate[0]), "--tls-key", str(certificate[1]))
    # A photo over gRPC that is refused gets CANCELLED instead of its status (serve_config/haproxy.cfg)
    load = (
        *PATIENT,
        "--users",
        "4",
        "--run-time",
        "1",
        "--ca-file",
        str(certificate[0]),
        "--exclude-tags",
        "photo",
        "instances",
    )
    with serving(*options, *tls, stdout=subprocess.DEVNULL) as server:
        url = server.rest_url.replace("http:", "https:")
        wrong = run_locust(tmp_path, url, "--api-key", "another", *load)
        assert all("status 403, not " in message for message in wrong.failures), wrong.failures
        assert sum(wrong.failures.values()) == wrong.total > 0
        monkeypatch.setenv("VINEGRAPE_API_KEY", "correct-key-of-the-load-test")
        right = run_locust(tmp_path, url, *load)
    assert right.verdict == "Passed: all thresholds were met.", right.output
    assert {transport for transport, _ in right.requests} == {"POST", "gRPC", ""}


@pytest.mark.tools
def test_refusals_of_a_real_edge_are_no_failures_over_rest_and_grpc(tiny_archive, tmp_path):
    """20 requests per second are sent, and the edge accepts 5. A refused user pauses for a second: there are enough."""
    program("haproxy", "haproxy")
    options = ("--edge", "--archive", str(tiny_archive), "--workers", "1", "--max-requests-per-second", "5")
    load = ("--users", "60", "--arrival-rate", "20", "--run-time", "2", "--max-refused-ratio", "0.99", "--tags", "png")
    # On a busy machine a request may not be sent in time
    load = (*load, "--max-failure-ratio", "0.5")
    with serving(*options, stdout=subprocess.DEVNULL) as server:
        result = run_locust(tmp_path, server.rest_url, *PATIENT, *load)
    assert all("every user was still waiting for a response" in message for message in result.failures)
    assert result.verdict == "Passed: all thresholds were met.", result.output
    assert {("POST refused", "png"), ("gRPC refused", "png")} <= result.requests.keys()


def test_a_broken_server_fails_its_thresholds(runs):
    """Wrong and failed responses, half a response, and no response within the timeout."""
    result, _ = runs["broken"]
    assert result.code == 1, result.output
    assert result.verdict == "Failed: p95, p99, failed, correct responses."
    assert [row.split("  ")[0] for row in failed_rows(result)] == ["p95", "p99", "failed", "correct responses"]
    messages = "\n".join(result.failures)
    for message in ("the label is not the most probable class", "status 500, not 200", "3.0 seconds"):
        assert message in messages
    assert len(result.failures) >= 4  # the message for half a response is the HTTP library's
    assert sum(result.failures.values()) == result.total > 0


def test_a_late_server_fails_only_the_latency_thresholds(runs):
    result, _ = runs["late"]
    assert (result.code, result.verdict) == (1, "Failed: p95, p99."), result.output
    assert result.failures == {}


def test_refused_requests_are_counted_separately_and_their_users_wait(runs):
    """Every second request is refused until ten minutes later, so that both users have stopped after four requests."""
    result, requests = runs["refusing"]
    assert (result.code, result.verdict) == (0, "Passed: all thresholds were met."), result.output
    assert result.requests[("POST refused", "png")] == result.requests[("POST", "png")] == 2
    assert result.failures == {}
    assert requests == 4


def test_an_open_loop_counts_latency_from_when_a_request_was_due(runs):
    """20 requests per second are due, and the server stalls for 3 s at the first.

    So the 31 that are due in the first 1.5 s take 1.5 s or more, though 4 users can have sent only 4 of them by then.
    """
    result, requests = runs["stalled"]
    assert result.code == 0, result.output
    assert sum(count for latency_ms, count in result.latencies_ms.items() if latency_ms >= 1500) >= 31
    assert result.total == requests


def test_requests_that_were_due_and_never_sent_are_failures(runs):
    """One user waits longer than the run for its only response."""
    result, requests = runs["unsent"]
    unsent = result.requests[("", "not sent")]
    assert requests == result.requests[("POST", "png")] == 1
    assert unsent >= 19  # due at 0.1 to 1.9 s; the run ends at 2 s or up to a second later
    assert (result.code, result.verdict) == (1, "Failed: failed.")
    assert list(result.failures.values()) == [unsent]


def test_an_invalid_setting_ends_the_run_with_one_line(runs):
    result, requests = runs["bad setting"]
    assert result.code != 0
    assert "p95_ms is 0.0; it must be more than 0." in result.output
    assert "Traceback" not in result.output
    assert requests == 0


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--p95-ms", "fast"), "invalid float value: 'fast'"),
        (("--host", "127.0.0.1:8080"), "The host is '127.0.0.1:8080'; it must be of the form http://"),
    ],
)
def test_other_invalid_settings_end_the_run(tmp_path, options, message):
    result = run_locust(tmp_path, f"http://127.0.0.1:{free_port()}", *options)
    assert result.code != 0
    assert message in result.output
    assert "Traceback" not in result.output


@pytest.mark.nightly
def test_a_run_without_users_fails(tmp_path):
    options = (*PNG_OVER_REST, *LIMITS, "--users", "0", "--run-time", "1")
    result = run_locust(tmp_path, f"http://127.0.0.1:{free_port()}", *options)
    assert (result.code, result.verdict) == (1, "Failed: p95, p99, correct responses.")
    assert result.total == 0
