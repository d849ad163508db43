"""One run: start every server, warm it up, then ask them all in turn, round after round: drift hits them alike."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path

import click
from prometheus_client.parser import text_string_to_metric_families

from vinegrape_handler.metadata import Metadata
from vinegrape_loadtests.bench import WORKLOADS, closed_loop, open_loop, servers
from vinegrape_loadtests.bench.ceiling import Ceiling, Share, ceiling, work
from vinegrape_loadtests.bench.closed_loop import Load, percentiles
from vinegrape_loadtests.bench.results import FULL, Measurement, Results
from vinegrape_loadtests.bench.servers import Target
from vinegrape_loadtests.bench.workloads import Workload, make_workloads
from vinegrape_loadtests.local.processes import cpu_seconds, pss_mib, wait_until_idle
from vinegrape_loadtests.local.server import starting, unpacked
from vinegrape_server.host.http import get
from vinegrape_server.plan import count_cores
from vinegrape_server.settings import LOOPBACK
from vinegrape_server.torchserve.java import find_java, java_version

_CONNECTIONS = (1, 4, *FULL)
_START_TIMEOUT_S = 120
_HANDLER_CPU = "vinegrape_bench_handler_cpu_seconds_total"
_PARTS = (("even", 0.5), ("even", 0.7), ("even", 0.9), ("poisson", 0.7))  # arrivals and parts of the peak


@dataclass(frozen=True)
class Options:
    """How much is measured.

    Attributes:
        archive: to serve.
        leaf: the picture that is asked about.
        workloads: by name; everything but requests a second is measured with the first alone, the leaf as PNG.
        rounds: in which everything is measured once.
        seconds: of each measurement.
        warm_up_s: of each server before the first.
        starts: of the server, timed before all else.
        peers: whether other servers are measured too.
    """

    archive: Path
    leaf: Path
    workloads: tuple[str, ...] = WORKLOADS
    rounds: int = 5
    seconds: float = 6
    warm_up_s: float = 20
    starts: int = 5
    peers: bool = True


@dataclass
class _Run:
    """What is asked, and what has come of it."""

    options: Options
    workloads: dict[str, Workload]
    targets: dict[str, Target]
    ceiling: Ceiling
    measurements: list[Measurement] = field(default_factory=list)
    open_loop_ms: dict[str, list[float]] = field(default_factory=dict)


def bench(options: Options) -> Results:
    """Measure.

    Raises:
        ClickException: a load generator that is missing, a server that does not start, or one that answers wrong.
    """
    closed_loop.check_programs()
    cores = count_cores()
    workloads = {
        name: each for name, each in make_workloads(options.leaf).items() if name in {"png", *options.workloads}
    }
    leaf = workloads["png"].bodies[0]
    start_s = _time_starts(options, leaf)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vinegrape-bench-")))
        archive = stack.enter_context(unpacked(options.archive))
        click.echo("Starting servers, and checking that they answer alike", err=True)
        peers = _peers(archive, folder, cores, workloads["png"]) if options.peers else []
        started = [servers.vinegrape(options.archive, folder), *peers]
        targets = {target.name: target for target in map(stack.enter_context, started)}
        _check_answers(targets, archive, leaf)
        run = _Run(options, workloads, targets, stack.enter_context(ceiling(archive, cores)))
        _warm_up(run)
        memory: dict[str, float] = {}
        for kind, mib in pss_mib(targets["vinegrape"].pid):
            memory[kind] = memory.get(kind, 0) + mib
        _measure_rounds(run)
        return Results(
            machine=_machine(cores),
            versions={name: version(name) for name in ("vinegrape", "torchserve", "onnxruntime", "pillow", "numpy")}
            | {"archive": Metadata.read(archive).version, "java": str(java_version(find_java()))},
            options={**vars(options), "archive": options.archive.name, "leaf": options.leaf.name},
            start_s=start_s,
            memory_mib=memory,
            measurements=run.measurements,
            open_loop_ms={name: percentiles(latencies) for name, latencies in run.open_loop_ms.items()},
        )


def _peers(archive: Path, folder: Path, cores: int, png: Workload) -> list[contextlib.AbstractContextManager[Target]]:
    from vinegrape_loadtests.bench.peers import weights

    weights.write_onnx(archive)
    weights.write_torchscript(archive, folder / "stock.pt")
    return [
        servers.fastapi("same functions", "fastapi_same_code", cores, archive, *png.bodies),
        servers.fastapi("ordinary", "fastapi_float32", cores, archive, *png.bodies),
        servers.stock(folder / "stock", folder / "stock.pt", *png.opaque),
    ]


def _time_starts(options: Options, leaf: bytes) -> list[float]:
    seconds = []
    with click.progressbar(range(options.starts), label="Starting", file=sys.stderr) as bar:
        for _ in bar:
            begin = time.perf_counter()
            with starting("--archive", str(options.archive), stdout=subprocess.DEVNULL) as server:
                url = f"http://{LOOPBACK}:{server.ports['rest_port']}/predictions/vinegrape"
                while time.perf_counter() - begin < _START_TIMEOUT_S:
                    with contextlib.suppress(OSError, ValueError, LookupError):
                        _ = json.loads(servers.post(url, leaf))["label"]
                        seconds.append(time.perf_counter() - begin)
                        break
                    time.sleep(0.01)
                server.wait_until_ready()  # one that is stopped before would report a failed start
    return seconds


def _check_answers(targets: dict[str, Target], archive: Path, leaf: bytes) -> None:
    """Raise a ClickException unless every server with our network at our size says what it says in process."""
    expected = json.loads(work(archive)(leaf))
    for name, target in targets.items():
        if name == "stock":
            continue
        answer = json.loads(servers.post(target.url, leaf))
        exact = name != "ordinary"
        if answer["label"] != expected["label"] or (exact and answer["probabilities"] != expected["probabilities"]):
            raise click.ClickException(f"{name} answers {answer}, and in process it is {expected}.")


def _warm_up(run: _Run) -> None:
    if not run.options.warm_up_s:
        return
    png = run.workloads["png"]
    with click.progressbar(list(run.targets.values()), label="Warming up", file=sys.stderr) as targets:
        for target in targets:
            closed_loop.rest(target.url, png.opaque if target.opaque else png.bodies, FULL[0], run.options.warm_up_s)
            if target.grpc:
                closed_loop.grpc(target.grpc, png.bodies[0], FULL[0], run.options.warm_up_s)
            wait_until_idle(target.pid)


def _measure_rounds(run: _Run) -> None:
    """Ask everything in every round, in another order each."""
    steps = [(number, step) for number in range(run.options.rounds) for step in _steps(run, number)]
    with click.progressbar(steps, label="Measuring", file=sys.stderr) as bar:
        for _, step in bar:
            step()


def _steps(run: _Run, number: int) -> Iterator[Callable[[], None]]:
    """What a round measures: closed loops in a random order, then open loops at parts of the peak that they showed."""
    png = run.workloads["png"]
    steps: list[Callable[[], None]] = [partial(_ask_alone, run, number)]
    steps += [partial(_ask_ceiling, run, number, workload) for workload in run.workloads.values()]
    for target in run.targets.values():
        for workload in run.workloads.values():
            for connections in _connections(target, workload is png):
                steps.append(partial(_ask_rest, run, number, target, workload, connections))
        if target.grpc:
            steps += [partial(_ask_grpc, run, number, target, png, connections) for connections in _CONNECTIONS]
    random.Random(number).shuffle(steps)  # noqa: S311
    yield from steps
    for arrivals, part in _PARTS:
        yield partial(_ask_open, run, number, arrivals, part)


def _connections(target: Target, png: bool) -> tuple[int, ...]:
    """With how many connections a server is asked, one after the other."""
    if target.name == "vinegrape" and png:
        return _CONNECTIONS
    if target.name == "same functions" and png:
        return (1, *FULL)
    if target.name == "stock":  # with 64 it would not answer in time
        return FULL[:1] if png else ()
    return FULL if png else FULL[:1]


def _ask_alone(run: _Run, number: int) -> None:
    _keep_ceiling(
        run, number, run.workloads["png"], run.ceiling.run(run.workloads["png"].bodies, run.options.seconds, 1)
    )


def _ask_ceiling(run: _Run, number: int, workload: Workload) -> None:
    _keep_ceiling(run, number, workload, run.ceiling.run(workload.bodies, run.options.seconds))


def _keep_ceiling(run: _Run, number: int, workload: Workload, shares: list[Share]) -> None:
    latencies = [1e3 * each for share in shares for each in share.latencies_s]
    seconds = statistics.mean(sum(share.latencies_s) for share in shares)
    cpu_ms = 1e3 * sum(share.cpu_s for share in shares) / len(latencies)
    run.measurements.append(
        Measurement(
            round=number,
            target="ceiling",
            workload=workload.name,
            transport="process",
            mode="closed",
            load=len(shares),
            requests=len(latencies),
            seconds=seconds,
            failed=0,
            latency_ms=percentiles(latencies),
            cpu_ms={"process": cpu_ms},
            handler_cpu_ms=cpu_ms,
            generator_cpu_ms=0,
        )
    )


def _ask_rest(run: _Run, number: int, target: Target, workload: Workload, connections: int) -> None:
    bodies = workload.opaque if target.opaque else workload.bodies
    ask = partial(closed_loop.rest, target.url, bodies, connections, run.options.seconds)
    _measure(run, number, target, workload, "rest", "closed", connections, ask)


def _ask_grpc(run: _Run, number: int, target: Target, workload: Workload, connections: int) -> None:
    ask = partial(closed_loop.grpc, target.grpc, workload.bodies[0], connections, run.options.seconds)
    _measure(run, number, target, workload, "grpc", "closed", connections, ask)


def _ask_open(run: _Run, number: int, arrivals: str, part: float) -> None:
    target, workload = run.targets["vinegrape"], run.workloads["png"]
    done = [m for m in run.measurements if (m.target, m.workload, m.transport) == ("vinegrape", "png", "rest")]
    peak = max(m.rate for m in done if m.round == number and m.mode == "closed" and m.load in FULL)
    due = open_loop.due_times(part * peak, run.options.seconds, poisson=arrivals == "poisson", seed=number)

    def ask() -> Load:
        load, latencies = open_loop.run(target.url, workload.bodies, due)
        run.open_loop_ms.setdefault(f"{arrivals} {part:g}", []).extend(latencies)
        return load

    _measure(run, number, target, workload, "rest", arrivals, part, ask)


def _measure(
    run: _Run,
    number: int,
    target: Target,
    workload: Workload,
    transport: str,
    mode: str,
    load: float,
    ask: Callable[[], Load],
) -> None:
    before, cpu = _counted(target, transport), cpu_seconds(target.pid)  # asking takes time of the server, too
    result = ask()
    spent, after = cpu_seconds(target.pid), _counted(target, transport)
    wait_until_idle(target.pid)
    # Over gRPC h2load sees a refusal as a success, for its HTTP status is 200
    unanswered = max(0, result.requests - round(after.answers - before.answers)) if transport == "grpc" else 0
    requests = max(result.requests, 1)
    run.measurements.append(
        Measurement(
            round=number,
            target=target.name,
            workload=workload.name,
            transport=transport,
            mode=mode,
            load=load,
            requests=result.requests,
            seconds=result.seconds,
            failed=result.failed + unanswered,
            latency_ms=result.latency_ms,
            cpu_ms={kind: 1e3 * (spent[kind] - cpu[kind]) / requests for kind in spent},
            handler_cpu_ms=1e3 * (after.handler_cpu_s - before.handler_cpu_s) / requests,
            generator_cpu_ms=1e3 * result.generator_cpu_s / requests,
        )
    )


@dataclass(frozen=True)
class _Counted:
    """What all workers of a server have counted: seconds of processors of the handler's functions, and good answers."""

    handler_cpu_s: float = 0
    answers: float = 0


def _counted(target: Target, transport: str) -> _Counted:
    """Nothing, where nobody counts."""
    if not target.operations_port:
        return _Counted()
    metrics = get(LOOPBACK, target.operations_port, "/metrics", timeout_s=10).body.decode()
    samples = [sample for family in text_string_to_metric_families(metrics) for sample in family.samples]
    return _Counted(
        sum(sample.value for sample in samples if sample.name == _HANDLER_CPU),
        sum(
            sample.value
            for sample in samples
            if sample.name == "vinegrape_requests_total"
            and (sample.labels["transport"], sample.labels["status"]) == (transport, "200")
        ),
    )


def _machine(cores: int) -> str:
    names = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    flags = next((line for line in _lines("/proc/cpuinfo") if line.startswith("flags")), "").split()
    vector = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8") if flag in flags]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    name = names[0] if names else platform.machine()
    return f"{cores} cores of {name} ({', '.join(vector)}), {memory:.0f} GiB, Linux {platform.release()}"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
