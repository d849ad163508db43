"""A load test of a vinegrape server: mixed requests over REST and gRPC. Every response is checked.

Thresholds decide the exit code. Run it from the root of the checkout, with the extra `loadtest` installed:

    locust -f loadtests/vinegrape_loadtests/locustfile.py --headless -H http://127.0.0.1:8080    4 users, 10 s
    locust -f loadtests/vinegrape_loadtests/locustfile.py -H http://127.0.0.1:8080    with Locust's page, port 8089
    ... --users 16 --arrival-rate 20 --run-time 1m     open loop: 20 requests per second, at most 16 in flight
    ... --processes 2                                  if one core cannot generate enough load
    ... --html report.html --csv report                reports
    ... RestUser --tags png photo                      some of the users, some of the requests
    ... --p95-ms 300, or --config FILE                 other thresholds; the file has lines like `p95-ms = 300`
    ... -H https://HOST:8000 --api-key KEY             a server with an edge, API keys and TLS

In an open loop, latency counts from the time when the request was due. A request that was due and never sent is a
failure named "not sent". A request that the server refuses because it has too many (status 429, RESOURCE_EXHAUSTED) is
no failure: it is counted under the type "POST refused" or "gRPC refused". If Locust and the server run on the same
machine, they share its cores.
"""

from __future__ import annotations

import dataclasses
import sys
from argparse import ArgumentParser
from typing import Any

import click
import grpc.experimental.gevent
from locust import events
from locust.env import Environment
from locust.exception import StopTest
from locust.runners import MasterRunner, Runner, WorkerRunner
from locust.stats import RequestStats, StatsEntry

from vinegrape_handler.errors import SettingError
from vinegrape_loadtests.current_run import END_MESSAGE, CurrentRun
from vinegrape_loadtests.pace import ClosedLoop, OpenLoop, now
from vinegrape_loadtests.response_checks import ResponseChecker
from vinegrape_loadtests.settings import API_KEY_VARIABLE, RUN_TIME_S, USERS, LoadSettings, check_host
from vinegrape_loadtests.shape import TimedLoadShape
from vinegrape_loadtests.thresholds import REFUSED, check_thresholds, format_table
from vinegrape_loadtests.users import GrpcUser, RestUser

__all__ = ["GrpcUser", "RestUser", "TimedLoadShape"]  # Locust finds them in this module


@events.init_command_line_parser.add_listener
def add_options(parser: ArgumentParser) -> None:
    """Add one option per setting, and change the defaults of two of Locust's options."""
    parser.set_defaults(num_users=USERS, run_time=RUN_TIME_S)
    group = parser.add_argument_group("vinegrape")
    for field in dataclasses.fields(LoadSettings):
        default = "" if field.default == "" else f" [default: {field.default}]"
        group.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=type(field.default),
            default=field.default,
            help=f"{field.metadata['meaning']}{default}".replace("%", "%%"),
            env_var=API_KEY_VARIABLE if field.name == "api_key" else None,
        )


@events.init.add_listener
def prepare(environment: Environment, **_: Any) -> None:
    """Check the settings. In processes that run users, make gRPC work with gevent.

    This must happen after Locust has forked its processes, because gRPC's threads do not survive a fork.
    """
    try:
        CurrentRun.settings = LoadSettings.from_options(environment.parsed_options)
        check_host(environment.host)
    except SettingError as error:
        sys.exit(f"locust: {error}")
    if not isinstance(environment.runner, MasterRunner):
        grpc.experimental.gevent.init_gevent()
        environment.runner.register_message(END_MESSAGE, end)


@events.test_start.add_listener
def start(environment: Environment, **_: Any) -> None:
    """Read the settings again, since Locust's page may have changed them, and start the pace."""
    try:
        CurrentRun.settings = LoadSettings.from_options(environment.parsed_options)
        if not isinstance(environment.runner, MasterRunner):
            CurrentRun.checker = ResponseChecker(CurrentRun.settings.tolerance, CurrentRun.settings.model_versions)
            CurrentRun.pace = make_pace(environment, CurrentRun.settings.arrival_rate)
            CurrentRun.pace.start()
    except SettingError as error:
        raise StopTest(str(error)) from error


def make_pace(environment: Environment, arrival_rate: float) -> ClosedLoop | OpenLoop:
    """Return this process's share of an open loop, or a closed loop if the rate is 0."""
    if not arrival_rate:
        return ClosedLoop()
    return OpenLoop(arrival_rate, environment.runner.worker_index, environment.parsed_options.expect_workers)


@events.test_stopping.add_listener
def end(environment: Environment, **_: Any) -> None:
    """End the pace; count each request that was due and not sent as a failure."""
    if isinstance(environment.runner, MasterRunner):
        return
    for due in CurrentRun.pace.end():
        environment.events.request.fire(
            request_type="",
            name="not sent",
            response_time=(now() - due) * 1000,
            response_length=0,
            exception=TimeoutError("every user was still waiting for a response"),
        )


@events.quitting.add_listener
def set_exit_code(environment: Environment, **_: Any) -> None:
    """Let the thresholds decide the exit code. Locust's own exit code is 1 after any failure, also an allowed one."""
    if not isinstance(environment.runner, WorkerRunner):
        thresholds = check_thresholds(
            environment.stats.total,
            sum_accepted(environment.stats),
            count_errors(environment.runner),
            CurrentRun.settings,
            environment.parsed_options.run_time,
        )
        environment.process_exit_code = 0 if all(t.passed for t in thresholds) else 1
        environment.events.quit.add_listener(lambda **_: click.echo(format_table(thresholds)))


def sum_accepted(stats: RequestStats) -> StatsEntry:
    """Add up the statistics of all requests that the server has not refused."""
    accepted = StatsEntry(stats, "accepted", "")
    for entry in stats.entries.values():
        if not entry.method.endswith(REFUSED):
            accepted.extend(entry)
    return accepted


def count_errors(runner: Runner) -> int:
    """Count errors of the load test itself: exceptions, and Locust processes that died."""
    lost = len(runner.clients.missing) if isinstance(runner, MasterRunner) else 0
    return len(runner.exceptions) + lost
