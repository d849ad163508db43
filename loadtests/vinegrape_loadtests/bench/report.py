"""The report in Markdown: the targets first, then the measurements behind them."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from vinegrape_loadtests.bench.results import EDGE, PLAIN, Measurement, Results


@dataclass(frozen=True)
class Target:
    """A target for one figure of the benchmark.

    Attributes:
        name: name of the figure, as shown in the report.
        unit: unit of the figure; empty for a ratio.
        limit: the value to reach.
        at_least: whether the figure must be at least the limit; else at most.
        figure: computes the figure from results; None if it was not measured.
    """

    name: str
    unit: str
    limit: float
    at_least: bool
    figure: Callable[[Results], float | None]

    def reached(self, figure: float) -> bool:
        """Return whether a figure reaches the target."""
        return figure >= self.limit if self.at_least else figure <= self.limit


def _median_start_s(results: Results) -> float | None:
    return statistics.median(results.start_s) if results.start_s else None


TARGETS = (
    Target("CPU time beyond the handler's functions, REST", "ms", 0.40, False, lambda r: r.overhead_cpu_ms("rest")),
    Target("CPU time beyond the handler's functions, gRPC", "ms", 0.65, False, lambda r: r.overhead_cpu_ms("grpc")),
    Target("CPU time of gRPC beyond REST", "ms", 0.6, False, lambda r: r.grpc_cpu_ms(PLAIN)),
    Target("CPU time of gRPC beyond REST, both through the edge", "ms", 0.6, False, lambda r: r.grpc_cpu_ms(EDGE)),
    Target("CPU time of the edge, REST", "ms", 0.25, False, lambda r: r.edge_cpu_ms()),
    Target("median latency that the edge adds, one connection", "ms", 0.5, False, lambda r: r.edge_latency_ms()),
    Target("requests/s / ceiling", "", 0.88, True, lambda r: r.ratio("ceiling")),
    Target("requests/s / fastapi_same_code", "", 1.05, True, lambda r: r.ratio("fastapi_same_code")),
    Target("requests/s / fastapi_float32", "", 2.0, True, lambda r: r.ratio("fastapi_float32")),
    Target("requests/s / fastapi_float32, photo", "", 4.0, True, lambda r: r.ratio("fastapi_float32", "photo")),
    Target("requests/s / torchserve_stock", "", 20.0, True, lambda r: r.ratio("torchserve_stock")),
    Target("median latency beyond the ceiling, one connection", "ms", 1.0, False, lambda r: r.idle_overhead_ms()),
    Target("p99 at 0.7 of the peak / ceiling's median, even arrivals", "", 4.0, False, lambda r: r.tail("even", 0.7)),
    Target("p99 at 0.7 of the peak / ceiling's median, Poisson", "", 4.0, False, lambda r: r.tail("poisson", 0.7)),
    Target("start to first correct response", "s", 3.0, False, _median_start_s),
    Target("memory of all processes, PSS", "MiB", 450.0, False, lambda r: sum(r.memory_mib.values()) or None),
)


def report(results: Results) -> str:
    """Format the results as Markdown."""
    lines = ["# Benchmark of serving", "", *_targets(results), ""]
    if edge := edge_table(results):
        lines += [
            "The edge and the gateway, with the PNG. CPU time per request is that at 16 connections:",
            "",
            *edge,
            "",
        ]
    return "\n".join([*lines, *_closed(results), "", *_open(results), "", *_machine(results)])


# The ways to the model. Each is compared with the first one.
_WAYS = {
    "REST": (PLAIN, "rest"),
    "REST through the edge": (EDGE, "rest"),
    "gRPC through the gateway": (PLAIN, "grpc"),
    "gRPC through the edge and the gateway": (EDGE, "grpc"),
}
_KINDS = ("Java", "worker", "gateway", "edge", "supervisor")


def edge_table(results: Results) -> list[str]:
    """Format what the edge and the gateway cost, as the lines of a Markdown table; empty if there is no gateway."""
    if not any("gateway" in m.cpu_ms for m in results.measurements):
        return []
    columns = [
        "way to the model",
        "requests/s / REST",
        "p50 ms, one connection",
        "CPU ms beyond the handler's functions",
    ]
    columns += [f"of it {kind}" for kind in _KINDS]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for way, (server, transport) in _WAYS.items():
        measured = results.at_16(server, transport)
        if measured:
            ratio = results.ratio(PLAIN, transport=transport, ours=server)
            idle = results.select(server=server, workload="png", transport=transport, mode="closed", load=1)
            values = [
                "" if ratio is None else f"{ratio:.2f}",
                _median([m.latency_ms["50"] for m in idle if m.latency_ms]),
                _median([m.overhead_cpu_ms for m in measured]),
                *(_median([_overhead_cpu_ms(m, kind) for m in measured]) for kind in _KINDS),
            ]
            lines.append(f"| {way} | {' | '.join(values)} |")
    return lines


def _overhead_cpu_ms(measurement: Measurement, kind: str) -> float:
    """Return the CPU ms per request of one kind of process; for the workers, without the handler's functions."""
    cpu_ms = measurement.cpu_ms.get(kind, 0)
    return cpu_ms - measurement.handler_cpu_ms if kind == "worker" else cpu_ms


def _targets(results: Results) -> list[str]:
    lines = ["| figure | measured | target | reached |", "|---|---|---|---|"]
    for target in TARGETS:
        figure, unit = target.figure(results), f" {target.unit}" if target.unit else ""
        limit = f"at {'least' if target.at_least else 'most'} {target.limit:g}{unit}"
        if figure is None:
            lines.append(f"| {target.name} | not measured | {limit} | |")
        else:
            reached = "yes" if target.reached(figure) else "no"
            lines.append(f"| {target.name} | {_three_digits(figure)}{unit} | {limit} | {reached} |")
    return lines


def _closed(results: Results) -> list[str]:
    lines = [
        "| closed loop | load | requests/s | / ceiling | p50 ms | p99 ms | CPU ms per request "
        "| CPU ms per request of the load generator |",
        "|---|---|---|---|---|---|---|---|",
    ]
    keys = dict.fromkeys((m.workload, m.server, m.transport, m.load) for m in _sorted(results) if m.mode == "closed")
    for workload, server, transport, load in keys:
        same = results.select(workload=workload, server=server, transport=transport, load=load, mode="closed")
        ceiling = results.rates("ceiling", workload, "process")
        ratios = [m.rate / ceiling[m.round] for m in same if m.round in ceiling]
        kinds = dict.fromkeys(kind for m in same for kind in m.cpu_ms)
        cpu = ", ".join(f"{kind} {_median([m.cpu_ms.get(kind, 0) for m in same])}" for kind in kinds)
        one, many = ("process", "processes") if transport == "process" else ("connection", "connections")
        lines.append(
            f"| {workload}, {server} | {transport}, {load:g} {one if load == 1 else many} "
            f"| {_median([m.rate for m in same])} | {_median(ratios)} "
            f"| {_median([m.latency_ms['50'] for m in same if m.latency_ms])} "
            f"| {_median([m.latency_ms['99'] for m in same if m.latency_ms])} | {cpu} "
            f"| {_median([m.generator_cpu_ms for m in same])} |"
        )
    return lines


def _open(results: Results) -> list[str]:
    lines = ["| open loop, vinegrape | p50 ms | p90 | p99 | p99.9 |", "|---|---|---|---|---|"]
    for name, percentiles in results.open_loop_ms.items():
        arrivals, part = name.split()
        values = " | ".join(_three_digits(value) for value in percentiles.values())
        lines.append(f"| {arrivals} arrivals at {part} of the peak | {values} |")
    return lines


def _machine(results: Results) -> list[str]:
    failed = sum(m.failed for m in results.measurements if m.server != "torchserve_stock")
    requests = sum(m.requests for m in results.measurements)
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    memory = _memory(results.memory_mib)
    if results.edge_memory_mib:
        memory += f"; with the edge: {_memory(results.edge_memory_mib)}"
    starts = ", ".join(f"{seconds:.1f}" for seconds in results.start_s)
    return [
        f"{results.machine}. {versions}.",
        f"{requests} requests, {failed} failed (without those of torchserve_stock). Starts: {starts} s. "
        f"Memory, MiB: {memory}.",
    ]


def _memory(memory_mib: dict[str, float]) -> str:
    return ", ".join(f"{kind} {mib:.0f}" for kind, mib in memory_mib.items())


def _sorted(results: Results) -> list[Measurement]:
    servers = list(dict.fromkeys(["ceiling", PLAIN, EDGE, *(m.server for m in results.measurements)]))
    workloads = list(dict.fromkeys(["png", *(m.workload for m in results.measurements)]))
    return sorted(
        results.measurements,
        key=lambda m: (workloads.index(m.workload), servers.index(m.server), m.transport != "rest", m.load),
    )


def _median(values: list[float]) -> str:
    return _three_digits(statistics.median(values)) if values else ""


def _three_digits(value: float) -> str:
    """Format a number with three significant digits; more above 1000, fewer below 1."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
