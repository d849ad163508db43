import dataclasses

import pytest

from vinegrape_loadtests.bench.plot import draw
from vinegrape_loadtests.bench.report import report
from vinegrape_loadtests.bench.results import Measurement, Results


def measurement(round_, target, rate, **fields) -> Measurement:
    """Of ten seconds; a request took 40 ms at the median, and 4 ms of Java beside 16 of a worker."""
    values = {
        "workload": "png",
        "transport": "process" if target == "ceiling" else "rest",
        "mode": "closed",
        "load": 2 if target == "ceiling" else 16,
        "failed": 0,
        "latency_ms": {"50": 40.0, "90": 50.0, "99": 60.0, "99.9": 70.0},
        "cpu_ms": {"Java": 4.0, "worker": 16.0},
        "handler_cpu_ms": 15.0,
        "generator_cpu_ms": 0.2,
        **fields,
    }
    return Measurement(round=round_, target=target, requests=10 * rate, seconds=10, **values)


def results(*measurements, **fields) -> Results:
    values = {
        "machine": "2 cores of a test",
        "versions": {"vinegrape": "1"},
        "options": {},
        "start_s": [2.0, 9.0, 3.0],
        "memory_mib": {"Java": 200.0, "worker": 150.0},
        "open_loop_ms": {},
    }
    return Results(measurements=list(measurements), **{**values, **fields})


def test_a_ratio_is_the_median_of_those_of_each_round():
    """A slow machine slows both; the round in which only one was hit does not count for more than another."""
    measured = results(
        measurement(0, "vinegrape", 90), measurement(0, "ceiling", 100),
        measurement(1, "vinegrape", 40), measurement(1, "ceiling", 50),
        measurement(2, "vinegrape", 10), measurement(2, "ceiling", 100),
    )  # fmt: skip
    assert measured.ratio("ceiling") == 0.8


def test_a_server_counts_at_the_better_of_16_and_64_connections():
    measured = results(
        measurement(0, "vinegrape", 30), measurement(0, "vinegrape", 60, load=64),
        measurement(0, "vinegrape", 99, load=4),
        measurement(0, "stock", 20), measurement(0, "stock", 10, load=64),
    )  # fmt: skip
    assert measured.ratio("stock") == 3


def test_one_process_alone_is_no_ceiling():
    measured = results(
        measurement(0, "vinegrape", 50), measurement(0, "ceiling", 60, load=1), measurement(0, "ceiling", 100)
    )
    assert measured.ratio("ceiling") == 0.5


def test_workloads_are_not_mixed():
    photos = {"workload": "photo"}
    measured = results(
        measurement(0, "vinegrape", 80), measurement(0, "ordinary", 40),
        measurement(0, "vinegrape", 50, **photos), measurement(0, "ordinary", 10, **photos),
    )  # fmt: skip
    assert measured.ratio("ordinary") == 2
    assert measured.ratio("ordinary", "photo") == 5


def test_a_server_that_answered_nothing_has_no_ratio():
    assert results(measurement(0, "vinegrape", 80), measurement(0, "stock", 0)).ratio("stock") is None


def test_the_overhead_is_what_all_processes_take_beyond_the_handler():
    assert results(measurement(0, "vinegrape", 10)).overhead_cpu_ms("rest") == 5
    assert results(measurement(0, "vinegrape", 10)).overhead_cpu_ms("grpc") is None


def test_the_idle_overhead_and_the_tail_are_against_one_process():
    alone = measurement(0, "ceiling", 30, load=1, latency_ms={"50": 20.0})
    measured = results(
        alone,
        measurement(0, "vinegrape", 30, load=1, latency_ms={"50": 21.5}),
        open_loop_ms={"even 0.7": {"50": 22.0, "90": 30.0, "99": 60.0, "99.9": 80.0}},
    )
    assert measured.idle_overhead_ms() == 1.5
    assert measured.tail("even", 0.7) == 3
    assert measured.tail("poisson", 0.7) is None


def test_what_is_written_is_read_again(tmp_path):
    written = results(measurement(0, "vinegrape", 10), measurement(0, "ceiling", 20))
    written.write(tmp_path / "bench.json")
    assert Results.read(tmp_path / "bench.json") == written


def test_the_report_says_what_is_reached_and_what_was_not_measured():
    lines = report(results(measurement(0, "vinegrape", 90), measurement(0, "ceiling", 100))).splitlines()
    assert "| CPU time beyond the handler's functions, REST | 5.00 ms | at most 0.4 ms | no |" in lines
    assert "| requests a second / ceiling | 0.90 | at least 0.88 | yes |" in lines
    assert "| / TorchServe's image_classifier | not measured | at least 20 | |" in lines
    assert "| start to the first right answer | 3.00 s | at most 3 s | yes |" in lines
    assert "| memory of all processes, PSS | 350 MiB | at most 450 MiB | yes |" in lines
    row = "| png, vinegrape | rest, 16 connections | 90.0 | 0.90 | 40.0 | 60.0 | Java 4.00, worker 16.0 | 0.20 |"
    assert row in lines


def test_requests_that_failed_are_reported():
    broken = dataclasses.replace(measurement(0, "vinegrape", 10), failed=3)
    assert "100 requests, 3 failed" in report(results(broken))


@pytest.mark.parametrize("measurements", [[], [measurement(0, "vinegrape", 9), measurement(0, "ceiling", 10)]])
def test_there_is_always_a_picture(measurements, tmp_path):
    draw(results(*measurements), tmp_path / "bench.png")
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
