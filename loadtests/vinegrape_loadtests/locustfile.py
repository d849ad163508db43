"""A mixed load on a vinegrape server, over REST and gRPC, with every answer checked; thresholds decide the exit code.

From the repository's root, with the extra `loadtest`:

    locust -f loadtests/vinegrape_loadtests/locustfile.py --headless -H http://127.0.0.1:8080              4 users, 10 s
    locust -f loadtests/vinegrape_loadtests/locustfile.py -H http://127.0.0.1:8080    Locust's page, on port 8089
    ... --users 16 --arrival-rate 20 --run-time 1m     open loop: 20 requests a second, at most 16 in flight
    ... --processes 2                                  for more load than one core of the generator makes
    ... --html report.html --csv report                reports
    ... RestUser --tags png photo                      some of the users, some of the questions
    ... --p95-ms 300, or --config FILE                 other thresholds; the file has lines like `p95-ms = 300`

An open loop's latency counts from when the request should have been sent. What was due and never sent is a failure
named "not sent". Where users share one machine with the server, they take its cores.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from argparse import ArgumentParser
from typing import Any
from urllib.parse import urlsplit

import click
import gevent
import grpc
import grpc.experimental.gevent
from geventhttpclient._parser import HTTPParseError
from locust import FastHttpUser, LoadTestShape, User, events, tag, task
from locust.env import Environment
from locust.exception import StopTest, StopUser
from locust.runners import MasterRunner, Runner, WorkerRunner
from locust.stats import CSV_STATS_INTERVAL_SEC

from vinegrape_handler.errors import SettingError
from vinegrape_loadtests.pace import ClosedLoop, Ended, OpenLoop, now
from vinegrape_loadtests.response_checks import Answers, WrongAnswer
from vinegrape_loadtests.sample_requests import Question, draw_questions
from vinegrape_loadtests.settings import RUN_TIME_S, USERS, LoadSettings
from vinegrape_loadtests.thresholds import judge, table

PROTOS, SERVICES = grpc.protos_and_services("clients/inference.proto")
QUESTIONS = draw_questions()  # before Locust forks: its processes share them, and start at once
PATH = "/predictions/vinegrape"
END = "vinegrape_end"  # the message to every process that its users shall stop asking


class Run:
    """What the users of this process share; made anew for every run that Locust's page starts."""

    settings: LoadSettings
    answers: Answers
    pace: ClosedLoop | OpenLoop = ClosedLoop()


@events.init_command_line_parser.add_listener
def add_options(parser: ArgumentParser) -> None:
    """An option for each of our settings; ours are the defaults of two of Locust's."""
    parser.set_defaults(num_users=USERS, run_time=RUN_TIME_S)
    group = parser.add_argument_group("vinegrape")
    for field in dataclasses.fields(LoadSettings):
        group.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=type(field.default),
            default=field.default,
            help=f"{field.metadata['meaning']} [default: {field.default}]".replace("%", "%%"),
        )


@events.init.add_listener
def prepare(environment: Environment, **_: Any) -> None:
    """Check the settings; where users will run, make gRPC cooperate.

    After Locust has forked its processes: gRPC's threads do not survive a fork.
    """
    try:
        Run.settings = LoadSettings.from_options(environment.parsed_options)
        check_host(environment.host)
    except SettingError as error:
        sys.exit(f"locust: {error}")
    if not isinstance(environment.runner, MasterRunner):
        grpc.experimental.gevent.init_gevent()
        environment.runner.register_message(END, end)


def check_host(host: str | None) -> None:
    """Refuse a host that every request would fail at."""
    if host and (not host.startswith(("http://", "https://")) or host.endswith("/")):
        raise SettingError(f"The host is {host!r}; it must be of the form http://127.0.0.1:8080, without a path.")


@events.test_start.add_listener
def start(environment: Environment, **_: Any) -> None:
    """Read the settings again, which Locust's page may have changed, and let requests arrive."""
    try:
        Run.settings = LoadSettings.from_options(environment.parsed_options)
        if not isinstance(environment.runner, MasterRunner):
            Run.answers = Answers(Run.settings.tolerance, Run.settings.model_versions)
            Run.pace = make_pace(environment, Run.settings.arrival_rate)
            Run.pace.start()
    except SettingError as error:
        raise StopTest(str(error)) from error


def make_pace(environment: Environment, arrival_rate: float) -> ClosedLoop | OpenLoop:
    """This process's part of the arrivals, or a closed loop."""
    if not arrival_rate:
        return ClosedLoop()
    return OpenLoop(arrival_rate, environment.runner.worker_index, environment.parsed_options.expect_workers)


@events.test_stopping.add_listener
def end(environment: Environment, **_: Any) -> None:
    """Let no more requests arrive; what was due and nobody was free to send has failed."""
    if isinstance(environment.runner, MasterRunner):
        return
    for due in Run.pace.end():
        environment.events.request.fire(
            request_type="",
            name="not sent",
            response_time=(now() - due) * 1000,
            response_length=0,
            exception=TimeoutError("every user was still waiting for an answer"),
        )


@events.quitting.add_listener
def set_exit_code(environment: Environment, **_: Any) -> None:
    """The verdict becomes the exit code, whatever Locust would say to a failure that was allowed."""
    if not isinstance(environment.runner, WorkerRunner):
        thresholds = judge(
            environment.stats.total,
            count_errors(environment.runner),
            Run.settings,
            environment.parsed_options.run_time,
        )
        environment.process_exit_code = 0 if all(each.held for each in thresholds) else 1
        environment.events.quit.add_listener(lambda **_: click.echo(table(thresholds)))


def count_errors(runner: Runner) -> int:
    """What went wrong with the load test itself: exceptions, and processes that died."""
    lost = len(runner.clients.missing) if isinstance(runner, MasterRunner) else 0
    return len(runner.exceptions) + lost


class Course(LoadTestShape):
    """All users at once; at the end of the time none asks again, and all answers are waited for and counted.

    Locust itself would drop what is in flight, and from other processes what is not yet reported.
    """

    use_common_options = True
    _last_s = math.inf  # when answers are waited for no longer; known once nothing is asked any more

    def reset_time(self) -> None:
        """Begin."""
        super().reset_time()
        self._last_s = math.inf

    def tick(self) -> tuple[int, float] | None:
        """The users that there shall be; none ends the run."""
        options, settings = self.runner.environment.parsed_options, Run.settings
        users = (options.num_users, options.num_users)
        if self.get_run_time() < options.run_time and self.runner.stats.num_requests < settings.max_requests:
            return users
        if self._last_s == math.inf:
            self._last_s = self.get_run_time() + 2 * settings.timeout_s
            self.runner.send_message(END)
        # Other processes report their counts together with how many users they still have
        if self.runner.user_count and self.get_run_time() < self._last_s:
            return users
        gevent.sleep(CSV_STATS_INTERVAL_SEC + 0.1)  # Locust writes its CSV as often as that, and not at the end
        return None


class Asking(User):
    """The questions, each as often as its weight."""

    abstract = True
    due = 0.0

    def wait_time(self) -> float:
        """Wait until it is this user's turn."""
        try:
            self.due = Run.pace.next()
        except Ended:
            raise StopUser from None
        return 0

    def on_start(self) -> None:
        """Wait for the first turn, too."""
        self.wait()

    def ask(self, question: Question) -> None:
        """Send one question, check its answer and tell Locust."""
        raise NotImplementedError

    @tag("png")
    @task(8)
    def png(self) -> None:
        """A leaf without loss."""
        self.ask(QUESTIONS["png"])

    @tag("jpeg")
    @task(6)
    def jpeg(self) -> None:
        """A leaf as most pictures come."""
        self.ask(QUESTIONS["jpeg"])

    @tag("photo")
    @task(2)
    def photo(self) -> None:
        """12 megapixels."""
        self.ask(QUESTIONS["photo"])

    @tag("instances")
    @task(2)
    def instances(self) -> None:
        """Two leaves and two that are none, in one request."""
        self.ask(QUESTIONS["instances"])

    @tag("broken")
    @task
    def cut(self) -> None:
        """A PNG that ends in its middle."""
        self.ask(QUESTIONS["cut"])

    @tag("broken")
    @task
    def text(self) -> None:
        """No image at all."""
        self.ask(QUESTIONS["text"])

    def milliseconds(self) -> float:
        """From when the request was due until now."""
        return (now() - self.due) * 1000


class RestUser(Asking, FastHttpUser):
    """Asks over REST, one connection a user."""

    def ask(self, question: Question) -> None:
        """Send it as the body."""
        headers = {"Content-Type": question.content_type}
        with (
            gevent.Timeout(Run.settings.timeout_s),
            self.client.post(
                PATH, data=question.body, headers=headers, name=question.name, catch_response=True
            ) as response,
        ):
            response.request_meta["response_time"] = self.milliseconds()
            problem = response.request_meta["exception"]
            if problem and (not response.status_code or isinstance(problem, HTTPParseError)):
                response.failure(problem)  # no connection, no answer in time, or half of one
                return
            try:
                Run.answers.check(question, response.content or b"", response.status_code)
            except WrongAnswer as error:
                response.failure(str(error))
            else:
                response.success()


class GrpcUser(Asking):
    """Asks over gRPC, one connection a user."""

    def on_start(self) -> None:
        """Connect, and wait for the first turn."""
        address = Run.settings.grpc_host or f"{urlsplit(self.host).hostname}:7070"
        self.channel = grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        self.predict = SERVICES.InferenceAPIsServiceStub(self.channel).Predictions
        super().on_start()

    def on_stop(self) -> None:
        """Disconnect."""
        self.channel.close()

    def ask(self, question: Question) -> None:
        """Send it as the input `data`."""
        request = PROTOS.PredictionsRequest(model_name="vinegrape", input={"data": question.body})
        body = b""
        problem: Exception | None = None
        try:
            body = self.predict(request, timeout=Run.settings.timeout_s).prediction
            milliseconds = self.milliseconds()
            Run.answers.check(question, body, None)
        except grpc.RpcError as error:
            milliseconds, problem = self.milliseconds(), ConnectionError(f"gRPC {error.code().name}")
        except WrongAnswer as error:
            problem = error
        self.environment.events.request.fire(
            request_type="gRPC",
            name=question.name,
            response_time=milliseconds,
            response_length=len(body),
            exception=problem,
            context={},
        )
