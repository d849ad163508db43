"""Single measurements: the start of the server, and one load on one server."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
from prometheus_client.parser import text_string_to_metric_families

from vinegrape_loadtests.bench import alternating, closed_loop, open_loop
from vinegrape_loadtests.bench.closed_loop import LoadResult, percentiles
from vinegrape_loadtests.bench.results import BEHIND_EDGE, EDGE, FULL, PLAIN, Measurement
from vinegrape_loadtests.bench.servers import BenchServer
from vinegrape_loadtests.bench.session import Session
from vinegrape_loadtests.bench.workloads import Workload
from vinegrape_loadtests.client import post
from vinegrape_loadtests.local.processes import cpu_seconds, wait_until_idle
from vinegrape_loadtests.local.server import starting
from vinegrape_server.host.http import Address, get
from vinegrape_server.settings import LOOPBACK

_START_TIMEOUT_S = 120
_HANDLER_CPU = "vinegrape_bench_handler_cpu_seconds_total"  # defined in timed_entry.py


def measure_starts(archive: Path, leaf: bytes, count: int) -> list[float]:
    """Start the server several times; return the seconds from each start to the first correct response."""
    seconds = []
    with click.progressbar(range(count), label="Starting", file=sys.stderr) as bar:
        for _ in bar:
            begin = time.perf_counter()
            with starting("--archive", str(archive), stdout=subprocess.DEVNULL) as server:
                while time.perf_counter() - begin < _START_TIMEOUT_S:
                    with contextlib.suppress(OSError, ValueError, LookupError):
                        _ = json.loads(post(server.predictions_url, leaf).body)["label"]
                        seconds.append(time.perf_counter() - begin)
                        break
                    time.sleep(0.01)
                server.wait_until_ready()  # a server that is stopped earlier reports a failed start
    return seconds


def measure_ceiling(session: Session, round_: int, workload: Workload, processes: int | None = None) -> None:
    """Measure the work without a server, in one process per core or in fewer."""
    results = session.ceiling.run(workload.bodies, session.options.seconds, processes)
    latencies_ms = [1e3 * latency for result in results for latency in result.latencies_s]
    cpu_ms = 1e3 * sum(result.cpu_s for result in results) / len(latencies_ms)
    session.measurements.append(
        Measurement(
            round=round_,
            server="ceiling",
            workload=workload.name,
            transport="process",
            mode="closed",
            load=len(results),
            requests=len(latencies_ms),
            seconds=statistics.mean(sum(result.latencies_s) for result in results),
            failed=0,
            latency_ms=percentiles(latencies_ms),
            cpu_ms={"process": cpu_ms},
            handler_cpu_ms=cpu_ms,
            generator_cpu_ms=0,
        )
    )


def measure_rest(session: Session, round_: int, server: BenchServer, workload: Workload, connections: int) -> None:
    """Measure a closed loop over REST."""
    bodies = workload.opaque if server.opaque else workload.bodies
    load = partial(closed_loop.rest, server.url, bodies, connections, session.options.seconds)
    _measure(session, load, _Labels(round_, server, workload, "rest", "closed", connections))


def measure_grpc(session: Session, round_: int, server: BenchServer, workload: Workload, connections: int) -> None:
    """Measure a closed loop over gRPC."""
    load = partial(closed_loop.grpc, server.grpc, workload.bodies[0], connections, session.options.seconds)
    _measure(session, load, _Labels(round_, server, workload, "grpc", "closed", connections))


def measure_open_loop(session: Session, round_: int, arrivals: str, part: float) -> None:
    """Measure an open loop of the PNG over REST.

    Args:
        session: receives the measurement and its latencies.
        round_: a round whose closed loops have been measured already.
        arrivals: "even" or "poisson".
        part: the rate as a part of the highest closed-loop rate of this round.
    """
    server, workload = session.servers[PLAIN], session.workloads["png"]
    closed = [m for m in session.measurements if (m.server, m.workload, m.transport) == (PLAIN, "png", "rest")]
    peak = max(m.rate for m in closed if m.round == round_ and m.mode == "closed" and m.load in FULL)
    due = open_loop.due_times(part * peak, session.options.seconds, poisson=arrivals == "poisson", seed=round_)

    def load() -> LoadResult:
        result, latencies_ms = open_loop.run(server.url, workload.bodies, due)
        session.open_loop_ms.setdefault(f"{arrivals} {part:g}", []).extend(latencies_ms)
        return result

    _measure(session, load, _Labels(round_, server, workload, "rest", arrivals, part))


def measure_alternating(session: Session, round_: int) -> None:
    """Measure the latency of the PNG through the edge and directly to TorchServe behind it, in turn."""
    server, workload = session.servers[EDGE], session.workloads["png"]
    urls = (server.url, server.behind_edge)
    results = alternating.run(urls, workload.bodies[0], 2 * session.options.seconds, seed=round_)
    wait_until_idle(server.pid)
    for name, result in zip((EDGE, BEHIND_EDGE), results, strict=True):
        session.measurements.append(
            Measurement(
                round=round_,
                server=name,
                workload=workload.name,
                transport="rest",
                mode="alternating",
                load=1,
                requests=result.requests,
                seconds=result.seconds,
                failed=result.failed,
                latency_ms=result.latency_ms,
                cpu_ms={},
                handler_cpu_ms=0,
                generator_cpu_ms=0,
            )
        )


@dataclass(frozen=True)
class _Labels:
    """What is measured, and under which load; `Measurement` documents the fields."""

    round: int
    server: BenchServer
    workload: Workload
    transport: str
    mode: str
    load: float


def _measure(session: Session, run_load: Callable[[], LoadResult], labels: _Labels) -> None:
    server = labels.server
    # Reading the counters costs the server CPU time, so they are read outside the two CPU readings
    before, cpu_before = _read_counters(server, labels.transport), cpu_seconds(server.pid)
    result = run_load()
    cpu_after, after = cpu_seconds(server.pid), _read_counters(server, labels.transport)
    wait_until_idle(server.pid)
    # h2load counts a refused gRPC call as a success, because its HTTP status is 200
    refused = max(0, result.requests - round(after.responses - before.responses)) if labels.transport == "grpc" else 0
    requests = max(result.requests, 1)
    session.measurements.append(
        Measurement(
            round=labels.round,
            server=server.name,
            workload=labels.workload.name,
            transport=labels.transport,
            mode=labels.mode,
            load=labels.load,
            requests=result.requests,
            seconds=result.seconds,
            failed=result.failed + refused,
            latency_ms=result.latency_ms,
            cpu_ms={kind: 1e3 * (cpu_after[kind] - cpu_before[kind]) / requests for kind in cpu_after},
            handler_cpu_ms=1e3 * (after.handler_cpu_s - before.handler_cpu_s) / requests,
            generator_cpu_ms=1e3 * result.generator_cpu_s / requests,
        )
    )


@dataclass(frozen=True)
class _HandlerCounters:
    """Counters of all workers: CPU seconds of the handler's functions, and responses with status 200."""

    handler_cpu_s: float = 0
    responses: float = 0


def _read_counters(server: BenchServer, transport: str) -> _HandlerCounters:
    """Read a server's metrics; zeros for servers without a metrics endpoint."""
    if not server.operations_port:
        return _HandlerCounters()
    metrics = get(Address(LOOPBACK, server.operations_port), "/metrics", timeout_s=10).body.decode()
    samples = [sample for family in text_string_to_metric_families(metrics) for sample in family.samples]
    return _HandlerCounters(
        handler_cpu_s=sum(sample.value for sample in samples if sample.name == _HANDLER_CPU),
        responses=sum(
            sample.value
            for sample in samples
            if sample.name == "vinegrape_requests_total"
            and (sample.labels["transport"], sample.labels["status"]) == (transport, "200")
        ),
    )
