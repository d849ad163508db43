"""A benchmark session: its options, the servers that run, and the measurements made so far."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click

from vinegrape_loadtests.bench import WORKLOADS, closed_loop, servers
from vinegrape_loadtests.bench.ceiling import Ceiling, make_predictor, start_ceiling
from vinegrape_loadtests.bench.results import FULL, Measurement
from vinegrape_loadtests.bench.servers import BenchServer
from vinegrape_loadtests.bench.workloads import Workload, make_workloads
from vinegrape_loadtests.client import post
from vinegrape_loadtests.local.processes import wait_until_idle
from vinegrape_loadtests.local.server import unpacked
from vinegrape_server.host.machine import count_cores


@dataclass(frozen=True)
class BenchOptions:
    """What is measured, and for how long.

    Attributes:
        archive: the archive to serve.
        leaf: the PNG that requests contain.
        workloads: names of workloads. Figures other than requests per second are measured with the PNG alone.
        rounds: how often everything is measured.
        seconds: duration of each measurement.
        warm_up_s: duration of each server's load before the first measurement.
        starts: how many starts of the server are timed.
        peers: whether other servers are measured too.
        connections: numbers of connections at which `vinegrape serve` is measured; one of `FULL` must be among them.
    """

    archive: Path
    leaf: Path
    workloads: tuple[str, ...] = WORKLOADS
    rounds: int = 5
    seconds: float = 6
    warm_up_s: float = 20
    starts: int = 5
    peers: bool = True
    connections: tuple[int, ...] = (1, 4, *FULL)


@dataclass
class Session:
    """Everything that one run of the benchmark needs.

    Attributes:
        options: what is measured.
        folder: the unpacked archive.
        workloads: request bodies, by name.
        servers: running servers, by name.
        ceiling: processes that do the same work without a server.
        measurements: results so far.
        open_loop_ms: latencies of all rounds, by arrivals and part of the peak.
    """

    options: BenchOptions
    folder: Path
    workloads: dict[str, Workload]
    servers: dict[str, BenchServer]
    ceiling: Ceiling
    measurements: list[Measurement] = field(default_factory=list)
    open_loop_ms: dict[str, list[float]] = field(default_factory=dict)


@contextlib.contextmanager
def open_session(options: BenchOptions) -> Iterator[Session]:
    """Start all servers, compare their responses and warm them up; stop them at the end of the block.

    Raises:
        ClickException: a server does not start, or its response is wrong.
    """
    cores = count_cores()
    workloads = make_workloads(options.leaf)
    selected = {name: workload for name, workload in workloads.items() if name in {"png", *options.workloads}}
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vinegrape-bench-")))
        folder = stack.enter_context(unpacked(options.archive))
        click.echo("Starting the servers, and comparing their responses", err=True)
        contexts: list[contextlib.AbstractContextManager[BenchServer]] = [servers.vinegrape(options.archive, scratch)]
        if servers.edge_is_installed():
            contexts.append(servers.vinegrape(options.archive, scratch, edge=True))
        else:
            click.echo("haproxy is not installed: the server with the edge is left out", err=True)
        if options.peers:
            contexts += _peers(folder, scratch, cores, workloads["png"])
        running = {server.name: server for server in map(stack.enter_context, contexts)}
        _check_responses(running, folder, workloads["png"].bodies[0])
        session = Session(options, folder, selected, running, stack.enter_context(start_ceiling(folder, cores)))
        _warm_up(session)
        yield session


def _peers(
    folder: Path, scratch: Path, cores: int, png: Workload
) -> list[contextlib.AbstractContextManager[BenchServer]]:
    from vinegrape_loadtests.bench.peers import weights

    weights.write_onnx(folder)
    weights.write_torchscript(folder, scratch / "torchserve_stock.pt")
    return [
        servers.fastapi("fastapi_same_code", cores, folder, *png.bodies),
        servers.fastapi("fastapi_float32", cores, folder, *png.bodies),
        servers.torchserve_stock(scratch / "torchserve_stock", scratch / "torchserve_stock.pt", *png.opaque),
    ]


def _check_responses(running: dict[str, BenchServer], folder: Path, leaf: bytes) -> None:
    """Raise a ClickException unless each server with our network and input size returns the expected prediction."""
    expected = json.loads(make_predictor(folder)(leaf))
    for name, server in running.items():
        if name == "torchserve_stock":  # has another input size
            continue
        prediction = json.loads(post(server.url, leaf).body)
        exact = name != "fastapi_float32"
        if prediction.get("label") != expected["label"] or (
            exact and prediction.get("probabilities") != expected["probabilities"]
        ):
            raise click.ClickException(f"{name} returns {prediction}; without a server it is {expected}.")


def _warm_up(session: Session) -> None:
    seconds, png = session.options.warm_up_s, session.workloads["png"]
    if not seconds:
        return
    with click.progressbar(list(session.servers.values()), label="Warming up", file=sys.stderr) as running:
        for server in running:
            closed_loop.rest(server.url, png.opaque if server.opaque else png.bodies, FULL[0], seconds)
            if server.grpc:
                closed_loop.grpc(server.grpc, png.bodies[0], FULL[0], seconds)
            wait_until_idle(server.pid)
