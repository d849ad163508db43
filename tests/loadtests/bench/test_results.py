import dataclasses

from tests.loadtests.bench.sample_results import measurement, results
from vinegrape_loadtests.bench.plot import draw, make_figure
from vinegrape_loadtests.bench.report import report
from vinegrape_loadtests.bench.results import Results


def test_a_ratio_is_the_median_of_the_rounds_ratios():
    """A slow machine slows both servers; a round in which only one was slow counts like any other."""
    measured = results(
        measurement(0, "vinegrape", 90), measurement(0, "ceiling", 100),
        measurement(1, "vinegrape", 40), measurement(1, "ceiling", 50),
        measurement(2, "vinegrape", 10), measurement(2, "ceiling", 100),
    )  # fmt: skip
    assert measured.ratio("ceiling") == 0.8


def test_the_better_of_16_and_64_connections_counts():
    measured = results(
        measurement(0, "vinegrape", 30), measurement(0, "vinegrape", 60, load=64),
        measurement(0, "vinegrape", 99, load=4),
        measurement(0, "torchserve_stock", 20), measurement(0, "torchserve_stock", 10, load=64),
    )  # fmt: skip
    assert measured.ratio("torchserve_stock") == 3


def test_one_process_alone_is_not_the_ceiling():
    measured = results(
        measurement(0, "vinegrape", 50), measurement(0, "ceiling", 60, load=1), measurement(0, "ceiling", 100)
    )
    assert measured.ratio("ceiling") == 0.5


def test_workloads_are_not_mixed():
    photos = {"workload": "photo"}
    measured = results(
        measurement(0, "vinegrape", 80), measurement(0, "fastapi_float32", 40),
        measurement(0, "vinegrape", 50, **photos), measurement(0, "fastapi_float32", 10, **photos),
    )  # fmt: skip
    assert measured.ratio("fastapi_float32") == 2
    assert measured.ratio("fastapi_float32", "photo") == 5


def test_a_server_without_any_response_has_no_ratio():
    measured = results(measurement(0, "vinegrape", 80), measurement(0, "torchserve_stock", 0))
    assert measured.ratio("torchserve_stock") is None


def test_the_overhead_is_the_cpu_time_of_all_processes_beyond_the_handler():
    assert results(measurement(0, "vinegrape", 10)).overhead_cpu_ms("rest") == 5
    assert results(measurement(0, "vinegrape", 10)).overhead_cpu_ms("grpc") is None


def test_the_idle_overhead_and_the_tail_are_relative_to_one_process():
    alone = measurement(0, "ceiling", 30, load=1, latency_ms={"50": 20.0})
    measured = results(
        alone,
        measurement(0, "vinegrape", 30, load=1, latency_ms={"50": 21.5}),
        open_loop_ms={"even 0.7": {"50": 22.0, "90": 30.0, "99": 60.0, "99.9": 80.0}},
    )
    assert measured.idle_overhead_ms() == 1.5
    assert measured.tail("even", 0.7) == 3
    assert measured.tail("poisson", 0.7) is None


def test_written_results_can_be_read(tmp_path):
    written = results(measurement(0, "vinegrape", 10), measurement(0, "ceiling", 20))
    written.write(tmp_path / "bench.json")
    assert Results.read(tmp_path / "bench.json") == written


def test_the_report_shows_which_targets_are_reached_and_which_figures_are_missing():
    lines = report(results(measurement(0, "vinegrape", 90), measurement(0, "ceiling", 100))).splitlines()
    assert "| CPU time beyond the handler's functions, REST | 5.00 ms | at most 0.4 ms | no |" in lines
    assert "| requests/s / ceiling | 0.90 | at least 0.88 | yes |" in lines
    assert "| requests/s / torchserve_stock | not measured | at least 20 | |" in lines
    assert "| start to first correct response | 3.00 s | at most 3 s | yes |" in lines
    assert "| memory of all processes, PSS | 350 MiB | at most 450 MiB | yes |" in lines
    row = "| png, vinegrape | rest, 16 connections | 90.0 | 0.90 | 40.0 | 60.0 | Java 4.00, worker 16.0 | 0.20 |"
    assert row in lines


def test_requests_that_failed_are_reported():
    broken = dataclasses.replace(measurement(0, "vinegrape", 10), failed=3)
    assert "100 requests, 3 failed" in report(results(broken))


def test_the_figure_shows_each_servers_part_of_the_ceiling_and_the_open_loops():
    percentiles = {"50": 22.0, "90": 30.0, "99": 60.0, "99.9": 80.0}
    bars, tails = make_figure(
        results(
            measurement(0, "vinegrape", 90),
            measurement(0, "fastapi_float32", 50),
            measurement(0, "ceiling", 100),
            open_loop_ms={"even 0.7": percentiles},
        )
    ).axes
    assert [label.get_text() for label in bars.get_yticklabels()] == ["FastAPI, Pillow, float32, png", "vinegrape, png"]
    assert [bar.get_width() for bar in bars.patches] == [0.5, 0.9]
    (line,) = tails.lines
    assert list(line.get_ydata()) == list(percentiles.values())


def test_a_figure_without_measurements_is_a_png(tmp_path):
    draw(results(), tmp_path / "bench.png")
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
