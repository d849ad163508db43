import dataclasses

from tests.loadtests.bench.sample_results import measurement, results
from vinegrape_loadtests.bench.plot import draw, make_figure
from vinegrape_loadtests.bench.report import report
from vinegrape_loadtests.bench.results import BEHIND_EDGE, EDGE, PLAIN, Results


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


def over(transport, server, overhead_ms, round_=0, **kinds):
    """A measurement whose CPU time beyond the handler's functions is known; `kinds` are parts of it."""
    worker = 15.0 + overhead_ms - sum(kinds.values())
    return measurement(round_, server, 10, transport=transport, cpu_ms={"worker": worker, **kinds})


def test_the_cost_of_grpc_is_its_overhead_beyond_that_of_rest_on_the_same_server_in_the_same_round():
    measured = results(
        over("rest", PLAIN, 1.0), over("grpc", PLAIN, 1.5),
        over("rest", PLAIN, 3.0, 1), over("grpc", PLAIN, 3.25, 1),
        over("rest", PLAIN, 9.0, 2), over("grpc", PLAIN, 9.25, 2),
        over("rest", EDGE, 2.0), over("grpc", EDGE, 4.0),
    )  # fmt: skip
    assert measured.grpc_cpu_ms(PLAIN) == 0.25
    assert measured.grpc_cpu_ms(EDGE) == 2
    assert results(over("grpc", PLAIN, 1.5)).grpc_cpu_ms(PLAIN) is None


def test_the_cost_of_the_edge_is_its_own_cpu_time_and_the_latency_beyond_that_of_the_torchserve_behind_it():
    alternating = {"mode": "alternating", "load": 1}
    measured = results(
        over("rest", EDGE, 1.0, edge=0.2), over("rest", EDGE, 1.0, 1, edge=0.3), over("rest", EDGE, 1.0, 2, edge=0.3),
        over("grpc", EDGE, 1.0, edge=0.9),
        measurement(0, EDGE, 10, latency_ms={"50": 20.5}, **alternating),
        measurement(0, BEHIND_EDGE, 10, latency_ms={"50": 20.25}, **alternating),
    )  # fmt: skip
    assert measured.edge_cpu_ms() == 0.3
    assert measured.edge_latency_ms() == 0.25
    assert (results().edge_cpu_ms(), results().edge_latency_ms()) == (None, None)


def test_the_table_of_the_edge_compares_each_way_with_rest_in_the_same_round():
    measured = results(
        measurement(0, PLAIN, 100, cpu_ms={"Java": 4.0, "worker": 16.0, "gateway": 0.0}),
        measurement(0, PLAIN, 80, load=1),
        measurement(0, EDGE, 90, cpu_ms={"Java": 4.0, "worker": 16.0, "edge": 0.25, "gateway": 0.0}),
        measurement(0, EDGE, 70, load=1, latency_ms={"50": 41.0, "99": 60.0}),
        measurement(0, PLAIN, 50, transport="grpc", cpu_ms={"Java": 3.0, "worker": 16.5, "gateway": 0.5}),
    )
    lines = report(measured).splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("| way to the model |"))
    assert lines[start + 2 : start + 6] == [
        "| REST | 1.00 | 40.0 | 5.00 | 4.00 | 1.00 | 0.00 | 0.00 | 0.00 |",
        "| REST through the edge | 0.90 | 41.0 | 5.25 | 4.00 | 1.00 | 0.00 | 0.25 | 0.00 |",
        "| gRPC through the gateway | 0.50 |  | 5.00 | 3.00 | 1.50 | 0.50 | 0.00 | 0.00 |",
        "",
    ]


def test_results_from_before_the_gateway_have_no_table_of_the_edge():
    assert "way to the model" not in report(results(measurement(0, PLAIN, 100)))


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
    written = results(measurement(0, "vinegrape", 10), measurement(0, "ceiling", 20), edge_memory_mib={"edge": 60.0})
    written.write(tmp_path / "bench.json")
    assert Results.read(tmp_path / "bench.json") == written


def test_the_report_shows_which_targets_are_reached_and_which_figures_are_missing():
    lines = report(results(measurement(0, "vinegrape", 90), measurement(0, "ceiling", 100))).splitlines()
    assert "| CPU time beyond the handler's functions, REST | 5.00 ms | at most 0.4 ms | no |" in lines
    assert "| requests/s / ceiling | 0.90 | at least 0.88 | yes |" in lines
    assert "| requests/s / torchserve_stock | not measured | at least 20 | |" in lines
    assert "| start to first correct response | 3.00 s | at most 3 s | yes |" in lines
    assert "| CPU time of the edge, REST | not measured | at most 0.25 ms | |" in lines
    assert "| memory of all processes, PSS | 350 MiB | at most 450 MiB | yes |" in lines
    row = "| png, vinegrape | rest, 16 connections | 90.0 | 0.90 | 40.0 | 60.0 | Java 4.00, worker 16.0 | 0.20 |"
    assert row in lines


def test_the_memory_with_the_edge_is_reported_beside_that_without_it():
    lines = report(results(edge_memory_mib={"Java": 200.0, "edge": 60.0})).splitlines()
    assert lines[-1].endswith("Memory, MiB: Java 200, worker 150; with the edge: Java 200, edge 60.")


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
