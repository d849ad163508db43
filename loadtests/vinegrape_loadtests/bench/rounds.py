"""Rounds: everything is measured once per round, so that a slower or faster machine affects all servers equally."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from functools import partial

import click

from vinegrape_loadtests.bench import measure
from vinegrape_loadtests.bench.results import EDGE, FULL, OURS
from vinegrape_loadtests.bench.servers import BenchServer
from vinegrape_loadtests.bench.session import Session

# Arrivals of the open loops, and their rate as a part of the highest closed-loop rate
_OPEN_LOOPS = (("even", 0.5), ("even", 0.7), ("even", 0.9), ("poisson", 0.7))


def measure_rounds(session: Session) -> None:
    """Measure everything in every round, each round in another order."""
    steps = [step for round_ in range(session.options.rounds) for step in _steps(session, round_)]
    with click.progressbar(steps, label="Measuring", file=sys.stderr) as bar:
        for step in bar:
            step()


def _steps(session: Session, round_: int) -> Iterator[Callable[[], None]]:
    """Yield the measurements of one round: closed loops in random order, then open loops at parts of their peak."""
    png = session.workloads["png"]
    steps: list[Callable[[], None]] = [partial(measure.measure_ceiling, session, round_, png, 1)]
    for workload in session.workloads.values():
        steps.append(partial(measure.measure_ceiling, session, round_, workload))
    for server in session.servers.values():
        for workload in session.workloads.values():
            for connections in _connections(session, server, workload is png):
                steps.append(partial(measure.measure_rest, session, round_, server, workload, connections))
        if server.grpc:
            for connections in session.options.connections:
                steps.append(partial(measure.measure_grpc, session, round_, server, png, connections))
    if EDGE in session.servers:
        steps.append(partial(measure.measure_alternating, session, round_))
    random.Random(round_).shuffle(steps)  # noqa: S311
    yield from steps
    for arrivals, part in _OPEN_LOOPS:
        yield partial(measure.measure_open_loop, session, round_, arrivals, part)


def _connections(session: Session, server: BenchServer, png: bool) -> tuple[int, ...]:
    """Numbers of connections at which a server is measured over REST."""
    if server.name in OURS and png:
        return session.options.connections
    if server.name == "fastapi_same_code" and png:
        return (1, *FULL)
    if server.name == "torchserve_stock":  # with 64 connections its responses time out
        return FULL[:1] if png else ()
    return FULL if png else FULL[:1]
