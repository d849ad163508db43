"""Starts TorchServe with its workers, watches them, and ends them."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

from vinegrape_handler.contract import SELF_CHECK_HEADER, SELF_CHECK_VARIABLE, WORKERS_READY, SelfCheckAnswer
from vinegrape_server.errors import ServeError
from vinegrape_server.host.console import say
from vinegrape_server.host.http import get
from vinegrape_server.host.processes import end_with_parent, lives
from vinegrape_server.host.signals import Stop
from vinegrape_server.in_flight import InFlight
from vinegrape_server.operations.worker_metrics import WorkerMetrics
from vinegrape_server.plan import Plan
from vinegrape_server.torchserve import configuration
from vinegrape_server.torchserve.log import TorchServeLog

_POLL_S = 0.05
_WATCH_S = 0.2
_SELF_CHECK_S = 5  # until one is given up
_PING_S = 1  # the same, of what TorchServe's frontend answers by itself; and how often it is asked
_HUNG_S = 10  # without an answer of the frontend
_STOP_S = 10  # until a TorchServe that was asked to end is killed


class Supervisor:
    """Of one TorchServe and its workers; a context manager that leaves none of them behind."""

    def __init__(self, plan: Plan, java: Path, folder: Path) -> None:
        self._plan = plan
        self._answered: set[int] = set()
        self._state = "starting"
        self._heard_at = 0.0
        self._self_check_token = secrets.token_hex()
        self.worker_metrics = WorkerMetrics(folder / configuration.METRICS)
        self._process = subprocess.Popen(  # noqa: S603
            configuration.command(plan, java, folder),
            env={**configuration.environment(plan, folder), SELF_CHECK_VARIABLE: self._self_check_token},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C reaches us alone, and its process group can be ended as one
            preexec_fn=end_with_parent,
        )
        self._log = TorchServeLog(self._process.stdout or ())

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._log.wait_for_end()

    @property
    def pid(self) -> int:
        """Process id of the Java process, whose children the workers are."""
        return self._process.pid

    def why_not_live(self) -> str:
        """Empty as long as TorchServe runs, and answers once it is ready."""
        if self._process.poll() is not None:
            return "TorchServe has ended"
        return "TorchServe does not answer" if self._state == "ready" and self._silent_s() > _HUNG_S else ""

    def why_not_ready(self) -> str:
        """Empty while requests are welcome: from all workers' first right answers until it stops."""
        if self._state == "starting":
            return f"starting: {len(self._answered)} of {self._plan.workers} workers have answered right"
        if self._state == "stopping":
            return "stopping"
        return self.why_not_live() or ("" if self.worker_metrics.gauge(WORKERS_READY.name) else "no worker runs")

    def wait_until_ready(self, stop: Stop) -> bool:
        """Ask for self-checks until every worker has passed one. `/ping` says Healthy before a model is loaded.

        Returns:
            False if asked to stop meanwhile.

        Raises:
            ServeError: a worker that cannot start, with its reason, or that takes too long.
        """
        deadline = time.monotonic() + self._plan.settings.startup_timeout_s
        while not stop.asked.wait(_POLL_S):
            self._check_alive()
            if time.monotonic() > deadline:
                self._log.release()
                raise ServeError(
                    f"{len(self._answered)} of {self._plan.workers} workers answered right within "
                    f"{self._plan.settings.startup_timeout_s} s (startup_timeout_s); the log above says more."
                )
            self._answered = {pid for pid in self._answered if lives(pid)} | self._self_check()
            if len(self._answered) >= self._plan.workers:
                self._log.release()
                self._state, self._heard_at = "ready", time.monotonic()
                return True
        return False

    def watch(self, stop: Stop) -> None:
        """Return when asked to stop.

        Raises:
            ServeError: TorchServe ended by itself, or has been silent or without a worker for as long as a start may
                take. It stops trying to start a worker that fails again and again, and then would refuse everything
                for ever.
        """
        limit = self._plan.settings.startup_timeout_s
        worked_at = asked_at = time.monotonic()
        while not stop.asked.wait(_WATCH_S):
            self._check_alive()
            if time.monotonic() - asked_at > _PING_S:
                self._ping()
                asked_at = time.monotonic()
                if self._has_worker():  # which reads files: five times a second would be a hundredth of a core
                    worked_at = asked_at
            if self._silent_s() > limit:
                raise ServeError(f"TorchServe has not answered for {limit} s (startup_timeout_s).")
            if time.monotonic() - worked_at > limit:
                raise ServeError(f"No worker has run for {limit} s (startup_timeout_s); the log above says more.")

    def stop(self, stop: Stop) -> None:
        """Welcome no more requests, let those in flight be answered, then end TorchServe.

        On SIGTERM it would drop what it has. Who routes requests here sees that this server is not ready any more;
        those that come meanwhile are answered too, until `drain_timeout_s` or a second request to stop.

        Raises:
            ServeError: TorchServe ended before it was asked to.
        """
        was_ready, self._state = self._state == "ready", "stopping"
        if was_ready:
            self._drain(stop)
        self._process.terminate()
        deadline = time.monotonic() + _STOP_S
        while self._process.poll() is None and time.monotonic() < deadline and not stop.now.wait(_POLL_S):
            pass

    def _drain(self, stop: Stop) -> None:
        limit = self._plan.settings.drain_timeout_s
        in_flight = InFlight(self._plan, self.pid, self.worker_metrics)
        begin = time.monotonic()
        while not stop.now.wait(_POLL_S) and not in_flight.none():
            self._check_alive()
            if time.monotonic() - begin > limit:
                say(f"vinegrape: Requests were still in flight after {limit} s (drain_timeout_s).\n", sys.stderr)
                return

    def _ping(self) -> None:
        """Note that the frontend answers, whatever it says."""
        settings = self._plan.settings
        with contextlib.suppress(OSError):
            get(settings.host, settings.rest_port, "/ping", _PING_S)
            self._heard_at = time.monotonic()

    def _silent_s(self) -> float:
        return time.monotonic() - self._heard_at

    def _has_worker(self) -> bool:
        """Whether a worker runs; unknown, as when too many files are open, is not none."""
        try:
            return bool(self.worker_metrics.gauge(WORKERS_READY.name))
        except OSError:
            return True

    def _self_check(self) -> set[int]:
        """The process id of the worker that has just passed a self-check; empty if none did."""
        settings, metadata = self._plan.settings, self._plan.archive.metadata
        path, header = f"/predictions/{metadata.name}", {SELF_CHECK_HEADER: self._self_check_token}
        try:
            answer = get(settings.host, settings.rest_port, path, _SELF_CHECK_S, header)
        except OSError:
            return set()
        if answer.status == 400:
            raise ServeError(
                f"The handler in {self._plan.archive.path} is older than this server. Pack it again: "
                "vinegrape archive OLD.mar NEW.mar"
            )
        try:
            checked = SelfCheckAnswer.from_body(json.loads(answer.body))
            return {checked.worker} if checked.version == metadata.version else set()
        except (ValueError, LookupError, TypeError):  # TorchServe's own answer while the model loads
            return set()

    def _check_alive(self) -> None:
        """Raise a ServeError if TorchServe has ended, or if a worker has said why it cannot start.

        Once the server has answered, a worker's failure is no reason to end it: the others answer while TorchServe
        tries again.
        """
        code = self._process.poll()
        if code is not None:
            self._log.wait_for_end()
        if self._log.failure:
            raise ServeError(f"A worker cannot start: {self._log.failure}")
        if code is not None:
            self._log.release()
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            raise ServeError(f"TorchServe {how}; the log above says more.")
