"""Runs the rows of the table, one after the other, on a server that is started again when a row has broken it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

from vinegrape_loadtests.chaos.answers import LOST, known_images
from vinegrape_loadtests.chaos.good_clients import GoodClients, Load
from vinegrape_loadtests.chaos.load import closed_loop
from vinegrape_loadtests.chaos.row import SKIPPED, Result, Row
from vinegrape_loadtests.chaos.target import Target, start_target
from vinegrape_loadtests.chaos.trial import Skip, Trial, details
from vinegrape_loadtests.chaos.watch import Watch

_TIMEOUT_S = 10  # of good clients
_PEAK_CONNECTIONS = 8
_SHARE_OF_PEAK = 0.4  # by good clients: the rest is for the fault and for this process, which share the cores
_MOST_PER_SECOND = 60.0  # more would only measure the clients
_GRPC_SHARE = 0.4


@dataclass(frozen=True)
class Options:
    """Options of a run.

    Attributes:
        archive: the archive to serve.
        edge: whether the server has the edge.
        long: whether to run the long form.
        soak_minutes: how long the soak runs.
    """

    archive: Path
    edge: bool
    long: bool
    soak_minutes: float = 30


class Session(contextlib.AbstractContextManager["Session"]):
    """Runs rows. As a context manager it ends its server with the block.

    Args:
        options: options of the run.

    Attributes:
        peak: right answers per second in a closed loop over REST.
        rates: requests per second of the good clients, by transport.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._images = known_images(options.archive)
        self._stack = contextlib.ExitStack()
        self._target: Target | None = None
        self._target_options: tuple[str, ...] = ()
        self.peak = 0.0
        self.rates: dict[str, float] = {}

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def measure_peak(self) -> None:
        """Measure the peak, and derive the rates of the good clients from it.

        Raises:
            ClickException: the server does not start, or does not answer right.
        """
        target = self._serve(())
        seconds = 3 if self._options.long else 1
        asyncio.run(closed_loop(target.rest, self._images, _PEAK_CONNECTIONS, 1))  # warm-up
        answers = asyncio.run(closed_loop(target.rest, self._images, _PEAK_CONNECTIONS, seconds))
        right = sum(answer.outcome == "right" for answer in answers)
        if right < len(answers) or not right:
            raise click.ClickException(
                f"{len(answers) - right} of {len(answers)} answers were not right before any fault: "
                f"{answers[-1].detail}. Is the archive's handler older than the server?"
            )
        self.peak = right / seconds
        rate = min(_SHARE_OF_PEAK * self.peak, _MOST_PER_SECOND)
        self.rates = {"rest": (1 - _GRPC_SHARE) * rate, "grpc": _GRPC_SHARE * rate}

    def run(self, row: Row) -> Result:
        """Run one row."""
        trial = Trial(
            row, self._options.long, self._options.archive, self._options.edge, self._images, self.rates, self.peak,
            soak_minutes=self._options.soak_minutes,
        )  # fmt: skip
        try:
            for need in row.needs:
                _check_need(need, self._options.edge)
            if row.target:
                self._run_with_target(trial)
            else:
                self._end_target()  # it would take part of the cores
                trial.begin()
                row.run(trial)
                trial.end = time.monotonic()
            return trial.result()
        except Skip as reason:
            return Result(row.name, row.attack, row.fault, row.claim, SKIPPED, [str(reason)])
        except Exception as error:  # whatever goes wrong in one row, the others are still tried
            self._end_target()
            trial.problems.append(f"{type(error).__name__}: {error}")
            return trial.result()

    def _run_with_target(self, trial: Trial) -> None:
        target = trial.target = self._serve(trial.row.options)
        with contextlib.ExitStack() as stack:
            trial.watch = stack.enter_context(Watch(target))
            if trial.row.clients:
                load = Load((target.endpoint,), self._images, self.rates, _TIMEOUT_S)
                trial.clients = stack.enter_context(GoodClients(load))
                if not trial.clients.wait_for_right_answers(0, _TIMEOUT_S):
                    before, trial.clients = trial.clients.answers, None
                    raise click.ClickException(f"no right answers before the fault: {details(before, LOST)}")
            deaths = _deaths(target)
            trial.begin()
            trial.row.run(trial)
            trial.finish()
        if trial.limits.worker_deaths is not None and target.is_running():
            died = _deaths(target) - deaths
            trial.require(died <= trial.limits.worker_deaths, f"{died:g} workers ended")
        if trial.problems:
            self._end_target()  # the next row gets a server that nothing has happened to

    def _serve(self, options: tuple[str, ...]) -> Target:
        """Return a server with these options that runs and is ready."""
        if self._target is not None and (
            self._target_options != options or not self._target.is_running() or self._target.probe() != "ok"
        ):
            self._end_target()
        if self._target is None:
            target = self._stack.enter_context(start_target(self._options.archive, self._options.edge, *options))
            try:
                target.server.wait_until_ready()
            except click.ClickException as error:
                raise click.ClickException(f"{error.message} {target.log_tail()}") from error
            self._target, self._target_options = target, options
        return self._target

    def _end_target(self) -> None:
        self._stack.close()
        self._target = None


def run_rows(rows: list[Row], options: Options, report: Callable[[Result], None]) -> tuple[float, dict[str, float]]:
    """Run rows, and report each result; return the peak and the rates of the good clients."""
    with Session(options) as session:
        session.measure_peak()
        for row in rows:
            report(session.run(row))
        return session.peak, session.rates


def _deaths(target: Target) -> float:
    return target.metric("vinegrape_worker_deaths_total")


def _check_need(need: str, edge: bool) -> None:
    """Check that a requirement of a row is met.

    Raises:
        Skip: it is not.
    """
    if need == "edge":
        if not edge:
            raise Skip("needs the edge")
    elif need == "root":
        if os.geteuid():
            raise Skip("needs root, to mount a temporary folder")
    elif shutil.which(need) is None:
        raise Skip(f"{need} is not installed")
