"""Results for a person: the ratios first, then what they were made from."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from vinegrape_loadtests.bench.results import Measurement, Results


@dataclass(frozen=True)
class Aim:
    """One thing that shall be so.

    Attributes:
        what: in words.
        unit: of the figure.
        limit: to reach.
        at_least: whether the figure may not be below the limit, rather than not above.
        figure: from results; None where it was not measured.
    """

    what: str
    unit: str
    limit: float
    at_least: bool
    figure: Callable[[Results], float | None]

    def reached(self, figure: float) -> bool:
        """Whether a figure is good enough."""
        return figure >= self.limit if self.at_least else figure <= self.limit


AIMS = (
    Aim("CPU time beyond the handler's functions, REST", "ms", 0.40, False, lambda r: r.overhead_cpu_ms("rest")),
    Aim("the same, gRPC", "ms", 0.65, False, lambda r: r.overhead_cpu_ms("grpc")),
    Aim("requests a second / ceiling", "", 0.88, True, lambda r: r.ratio("ceiling")),
    Aim("/ FastAPI calling the same functions", "", 1.05, True, lambda r: r.ratio("same functions")),
    Aim("/ FastAPI, Pillow and float32", "", 2.0, True, lambda r: r.ratio("ordinary")),
    Aim("the same, 12-megapixel photos", "", 4.0, True, lambda r: r.ratio("ordinary", "photo")),
    Aim("/ TorchServe's image_classifier", "", 20.0, True, lambda r: r.ratio("stock")),
    Aim("one connection, median over in process", "ms", 1.0, False, lambda r: r.idle_overhead_ms()),
    Aim("p99 at 0.7 of the peak / in process", "", 4.0, False, lambda r: r.tail("even", 0.7)),
    Aim("the same, Poisson arrivals", "", 4.0, False, lambda r: r.tail("poisson", 0.7)),
    Aim(
        "start to the first right answer",
        "s",
        3.0,
        False,
        lambda r: statistics.median(r.start_s) if r.start_s else None,
    ),
    Aim("memory of all processes, PSS", "MiB", 450.0, False, lambda r: sum(r.memory_mib.values()) or None),
)


def report(results: Results) -> str:
    """Everything, as Markdown."""
    return "\n".join([*_aims(results), "", *_closed(results), "", *_open(results), "", *_machine(results)])


def _aims(results: Results) -> list[str]:
    lines = ["| | measured | to reach | |", "|---|---|---|---|"]
    for aim in AIMS:
        figure, unit = aim.figure(results), f" {aim.unit}" if aim.unit else ""
        bound = f"at {'least' if aim.at_least else 'most'} {aim.limit:g}{unit}"
        if figure is None:
            lines.append(f"| {aim.what} | not measured | {bound} | |")
        else:
            lines.append(
                f"| {aim.what} | {_short(figure)}{unit} | {bound} | {'yes' if aim.reached(figure) else 'no'} |"
            )
    return lines


def _closed(results: Results) -> list[str]:
    lines = [
        "| closed loop | asked with | requests/s | of the ceiling | p50 ms | p99 ms | CPU ms a request | generator's |",
        "|---|---|---|---|---|---|---|---|",
    ]
    keys = dict.fromkeys((m.workload, m.target, m.transport, m.load) for m in _sorted(results) if m.mode == "closed")
    for workload, target, transport, load in keys:
        same = results.select(workload=workload, target=target, transport=transport, load=load, mode="closed")
        ceiling = results.rates("ceiling", workload, "process")
        of_ceiling = [m.rate / ceiling[m.round] for m in same if m.round in ceiling]
        kinds = dict.fromkeys(kind for m in same for kind in m.cpu_ms)
        cpu = ", ".join(f"{kind} {_median([m.cpu_ms.get(kind, 0) for m in same])}" for kind in kinds)
        one, many = ("process", "processes") if transport == "process" else ("connection", "connections")
        lines.append(
            f"| {workload}, {target} | {transport}, {load:g} {one if load == 1 else many} "
            f"| {_median([m.rate for m in same])} | {_median(of_ceiling)} "
            f"| {_median([m.latency_ms['50'] for m in same if m.latency_ms])} "
            f"| {_median([m.latency_ms['99'] for m in same if m.latency_ms])} | {cpu} "
            f"| {_median([m.generator_cpu_ms for m in same])} |"
        )
    return lines


def _open(results: Results) -> list[str]:
    lines = ["| open loop, vinegrape | p50 ms | p90 | p99 | p99.9 |", "|---|---|---|---|---|"]
    for name, percentiles in results.open_loop_ms.items():
        arrivals, part = name.split()
        values = " | ".join(_short(value) for value in percentiles.values())
        lines.append(f"| {arrivals} arrivals at {part} of the peak | {values} |")
    return lines


def _machine(results: Results) -> list[str]:
    failed = sum(m.failed for m in results.measurements if m.target != "stock")
    asked = sum(m.requests for m in results.measurements)
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    memory = ", ".join(f"{kind} {mib:.0f}" for kind, mib in results.memory_mib.items())
    starts = ", ".join(f"{seconds:.1f}" for seconds in results.start_s)
    return [
        f"{results.machine}. {versions}.",
        f"{asked} requests, {failed} failed (TorchServe's image_classifier apart). Starts: {starts} s. "
        f"Memory, MiB: {memory}.",
    ]


def _sorted(results: Results) -> list[Measurement]:
    targets = list(dict.fromkeys(["ceiling", "vinegrape", *(m.target for m in results.measurements)]))
    workloads = list(dict.fromkeys(["png", *(m.workload for m in results.measurements)]))
    return sorted(
        results.measurements,
        key=lambda m: (workloads.index(m.workload), targets.index(m.target), m.transport != "rest", m.load),
    )


def _median(values: list[float]) -> str:
    return _short(statistics.median(values)) if values else ""


def _short(value: float) -> str:
    """Three digits that count."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
