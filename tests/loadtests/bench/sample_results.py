"""Benchmark results made by hand, whose figures can be checked by eye."""

from vinegrape_loadtests.bench.results import Measurement, Results


def measurement(round_, server, rate, **fields) -> Measurement:
    """A load of ten seconds. The median latency is 40 ms; a request takes 4 ms of CPU in Java and 16 ms in a worker."""
    values = {
        "workload": "png",
        "transport": "process" if server == "ceiling" else "rest",
        "mode": "closed",
        "load": 2 if server == "ceiling" else 16,
        "failed": 0,
        "latency_ms": {"50": 40.0, "90": 50.0, "99": 60.0, "99.9": 70.0},
        "cpu_ms": {"Java": 4.0, "worker": 16.0},
        "handler_cpu_ms": 15.0,
        "generator_cpu_ms": 0.2,
        **fields,
    }
    return Measurement(round=round_, server=server, requests=10 * rate, seconds=10, **values)


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
