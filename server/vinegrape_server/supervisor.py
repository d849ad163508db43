"""Supervise TorchServe and its workers: wait until they are ready, watch them, stop them."""

from __future__ import annotations

import enum
import secrets
import sys
import time
from pathlib import Path

from vinegrape_handler.contract import SELF_CHECK_VARIABLE, WORKERS_READY
from vinegrape_server.errors import ServeError
from vinegrape_server.host.console import write_console
from vinegrape_server.host.processes import is_running
from vinegrape_server.host.signals import Stop
from vinegrape_server.in_flight import InFlight
from vinegrape_server.operations.worker_metrics import WorkerMetrics
from vinegrape_server.plan import Plan
from vinegrape_server.torchserve import configuration
from vinegrape_server.torchserve.client import PING_TIMEOUT_S, TorchServeClient
from vinegrape_server.torchserve.process import TorchServeProcess

_POLL_S = 0.05
_WATCH_S = 0.2
_PING_INTERVAL_S = PING_TIMEOUT_S
_NOT_LIVE_S = 10  # without a response of the frontend


class Phase(enum.Enum):
    """The phases of a server."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"


class Supervisor:
    """Supervises one TorchServe and its workers. As a context manager it ends them with the block.

    Args:
        plan: what to start.
        java: the `java` program.
        folder: the folder of this instance, filled by `configuration.prepare`.

    Attributes:
        pid: process id of TorchServe's Java process, whose children are the workers.
        worker_metrics: the metrics of all workers.
        client: sends requests to TorchServe.
    """

    def __init__(self, plan: Plan, java: Path, folder: Path) -> None:
        self._settings = plan.settings
        self._phase = Phase.STARTING
        self._checked: set[int] = set()  # process ids of the workers that have passed a self-check
        self._responded_at = 0.0
        self._token = secrets.token_hex()
        self.client = TorchServeClient(plan, folder)
        self.worker_metrics = WorkerMetrics(folder / configuration.METRICS_FOLDER)
        self._process = TorchServeProcess(
            configuration.command(plan, java, folder),
            {**configuration.environment(plan, folder), SELF_CHECK_VARIABLE: self._token},
            folder,
        )
        self.pid = self._process.pid

    def __enter__(self) -> Supervisor:
        self._process.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.__exit__(*exception)

    def why_not_live(self) -> str:
        """Return the reason why the server is not live; empty if TorchServe runs and, once ready, responds."""
        if not self._process.is_running():
            return "TorchServe has ended"
        if self._phase is Phase.READY and self._silent_s() > _NOT_LIVE_S:
            return "TorchServe does not respond"
        return ""

    def why_not_ready(self) -> str:
        """Return the reason why the server is not ready; empty after the workers' self-checks and before the stop."""
        if self._phase is Phase.STARTING:
            return f"starting: {self._progress()}"
        if self._phase is Phase.STOPPING:
            return "stopping"
        return self.why_not_live() or ("" if self.worker_metrics.gauge(WORKERS_READY.name) else "no worker is running")

    def wait_until_ready(self, stop: Stop) -> bool:
        """Wait until every worker has passed a self-check.

        TorchServe's `/ping` does not show this: it reports "Healthy" before a model is loaded.

        Returns:
            False if a stop is requested first.

        Raises:
            ServeError: a worker cannot start, or the start takes longer than `startup_timeout_s`.
        """
        deadline = time.monotonic() + self._settings.startup_timeout_s
        while not stop.requested.wait(_POLL_S):
            self._process.check()
            if time.monotonic() > deadline:
                self._process.log.release()
                raise ServeError(
                    f"{self._progress()} within {self._settings.startup_timeout_s} s (startup_timeout_s). "
                    "See the log above."
                )
            self._checked = {pid for pid in self._checked if is_running(pid)}
            worker = self.client.self_check(self._token)
            if worker is not None:
                self._checked.add(worker)
            if len(self._checked) >= self._settings.workers:
                self._process.log.release()
                self._phase, self._responded_at = Phase.READY, time.monotonic()
                return True
        return False

    def watch(self, stop: Stop) -> None:
        """Watch TorchServe until a stop is requested.

        TorchServe stops restarting a worker that fails repeatedly, and then refuses every request.

        Raises:
            ServeError: TorchServe has ended; or it has not responded, or no worker has run, for `startup_timeout_s`.
        """
        limit_s = self._settings.startup_timeout_s
        worker_seen_at = pinged_at = time.monotonic()
        while not stop.requested.wait(_WATCH_S):
            self._process.check()
            if time.monotonic() - pinged_at > _PING_INTERVAL_S:
                if self.client.ping():
                    self._responded_at = time.monotonic()
                pinged_at = time.monotonic()
                if self._has_worker():  # reads files: five times per second would take 1 % of a core
                    worker_seen_at = pinged_at
            if self._silent_s() > limit_s:
                raise ServeError(f"TorchServe has not responded for {limit_s} s (startup_timeout_s).")
            if time.monotonic() - worker_seen_at > limit_s:
                raise ServeError(f"No worker has run for {limit_s} s (startup_timeout_s). See the log above.")

    def stop(self, stop: Stop) -> None:
        """Report "not ready", wait for the requests in flight, then end TorchServe.

        TorchServe itself drops its requests on SIGTERM. The wait ends at the latest after `drain_timeout_s`, or when an
        immediate stop is requested. New requests that arrive during the wait are served too.

        Raises:
            ServeError: TorchServe has ended during the wait.
        """
        was_ready = self._phase is Phase.READY
        self._phase = Phase.STOPPING
        if was_ready:
            self._drain(stop)
        self._process.terminate(stop)

    def _drain(self, stop: Stop) -> None:
        limit_s = self._settings.drain_timeout_s
        in_flight = InFlight(self.client, self.worker_metrics, self.pid, self._settings.max_batch_delay_ms)
        start = time.monotonic()
        while not stop.immediate.wait(_POLL_S) and not in_flight.none():
            self._process.check()
            if time.monotonic() - start > limit_s:
                write_console(
                    f"vinegrape: Requests were still in flight after {limit_s} s (drain_timeout_s).\n", sys.stderr
                )
                return

    def _progress(self) -> str:
        return f"{len(self._checked)} of {self._settings.workers} workers have passed their self-check"

    def _silent_s(self) -> float:
        """Seconds since the frontend's last response."""
        return time.monotonic() - self._responded_at

    def _has_worker(self) -> bool:
        """Return whether a worker runs; True if the metrics cannot be read, for example if too many files are open."""
        try:
            return bool(self.worker_metrics.gauge(WORKERS_READY.name))
        except OSError:
            return True
