"""Supervise TorchServe, its workers and the other processes: wait until they are ready, watch them, stop them."""

from __future__ import annotations

import contextlib
import enum
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

import psutil

from vinegrape_handler.contract import SELF_CHECK_VARIABLE
from vinegrape_server.children import Child, Process
from vinegrape_server.edge import configuration as edge
from vinegrape_server.errors import ServeError
from vinegrape_server.host.http import Address
from vinegrape_server.host.instance import free_bytes
from vinegrape_server.host.log import log
from vinegrape_server.host.processes import find_workers, has_clients, is_running
from vinegrape_server.host.signals import Stop
from vinegrape_server.in_flight import InFlight
from vinegrape_server.models.swap import Models, Tools
from vinegrape_server.operations.worker_metrics import WorkerMetrics
from vinegrape_server.plan import Plan, Served
from vinegrape_server.probes import EDGE, GATEWAY, PING_INTERVAL_S, Prober
from vinegrape_server.torchserve import configuration
from vinegrape_server.torchserve.client import TorchServeClient
from vinegrape_server.torchserve.process import TorchServeProcess

_POLL_S = 0.05
_WATCH_S = 0.2
_NOT_LIVE_PINGS = 10
_FULL_BYTES = 1_000_000
# How long a stop waits for clients to close their idle connections, once no request is in flight
_IDLE_CONNECTIONS_S = 5


class Phase(enum.Enum):
    """The phases of a server."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"


class Supervisor:
    """Supervises one TorchServe and its workers. As a context manager it ends them with the block.

    Args:
        served: what is served.
        java: the `java` program.
        folder: the folder of this instance, filled by `configuration.prepare`.
        children: starts each further process, by its name: first those that clients connect to.

    Attributes:
        pid: process id of TorchServe's Java process, whose children are the workers.
        worker_metrics: the metrics of all workers.
        client: sends requests to TorchServe.
        models: the versions of the model.
    """

    def __init__(
        self,
        served: Served,
        java: Path,
        folder: Path,
        children: Mapping[str, Callable[[], Process]] = MappingProxyType({}),
    ) -> None:
        plan = served.plan
        self._settings = plan.settings
        self._folder = folder
        self._phase = Phase.STARTING
        self._checked: set[int] = set()  # process ids of the workers that have passed a self-check
        self._check_error: ServeError | None = None
        self._disk_is_full = False
        self._token = secrets.token_hex()
        self.client = TorchServeClient(served, folder, entry(plan, folder))
        self.worker_metrics = WorkerMetrics(folder / configuration.METRICS_FOLDER)
        headers = edge.probe_headers(folder) if EDGE in children else {}
        self._prober = Prober(plan.settings, self.client, self.worker_metrics, self._token, headers, children)
        self._process = TorchServeProcess(
            configuration.command(plan, java, folder),
            {**configuration.environment(plan, folder), SELF_CHECK_VARIABLE: self._token},
            folder,
        )
        self.pid = self._process.pid
        self._starts = children
        self._children: list[Child] = []
        tools = Tools(self.client, self.worker_metrics, self._process.log, self._token, self._children_follow)
        self.models = Models(served, configuration.store(folder), tools)

    def __enter__(self) -> Supervisor:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._process)
            self._children = [stack.enter_context(Child(name, start)) for name, start in self._starts.items()]
            stack.callback(self._prober.stop)
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._exit.close()

    def pids(self) -> dict[str, list[int]]:
        """Return the ids of the processes by kind."""
        java = psutil.Process(self.pid)
        return {
            "frontend": [self.pid],
            "workers": [worker.pid for worker in find_workers(java)],
            **{child.name: [child.process.pid] for child in self._children},
        }

    def restarts(self) -> dict[str, int]:
        """Return how many times each further process was started again, by its name."""
        return {child.name: child.restarts for child in self._children}

    def why_not_live(self) -> str:
        """Return the reason why the server is not live; empty if TorchServe runs and, once ready, responds."""
        if not self._process.is_running():
            return "TorchServe has ended"
        if self._phase is Phase.READY and self._prober.unanswered_pings >= _NOT_LIVE_PINGS:
            return "TorchServe does not respond"
        return ""

    def why_not_ready(self) -> str:
        """Return the reason why the server is not ready; empty if people who send requests now get responses."""
        if self._phase is Phase.STARTING:
            return f"starting: {self._progress()}"
        if self._phase is Phase.STOPPING:
            return "stopping"
        return self.why_not_live() or self._prober.why_not_ready()

    def wait_until_ready(self, stop: Stop) -> bool:
        """Wait until every worker has passed a self-check, and every way to the workers has been tried.

        TorchServe's `/ping` does not show this: it reports "Healthy" before a model is loaded.

        Returns:
            False if a stop is requested first.

        Raises:
            ServeError: a worker or a further process cannot start, or the start takes longer than `startup_timeout_s`.
        """
        deadline = time.monotonic() + self._settings.startup_timeout_s
        # In a thread: a self-check can wait for a worker that loads its model, and a stop must not wait with it
        threading.Thread(target=self._check_workers, daemon=True).start()
        while not stop.requested.wait(_POLL_S):
            self._process.check()
            for child in self._children:
                child.keep_running()
            if self._check_error:
                raise self._check_error
            if time.monotonic() > deadline:
                self._process.log.release()
                limit = f"{self._settings.startup_timeout_s} s (startup_timeout_s)"
                raise ServeError(f"{self._progress()} within {limit}. See the log above.")
            if self._all_checked() and not self._prober.why_not_ready():
                self._process.log.release()
                self._phase = Phase.READY
                return True
        return False

    def watch(self, stop: Stop) -> None:
        """Watch all processes until a stop is requested, and start those again that have ended.

        TorchServe starts its workers again, but stops doing so if they fail repeatedly.

        Raises:
            ServeError: TorchServe has ended; or it has not responded, or workers have been missing, for
                `startup_timeout_s`; or another process cannot be started again.
        """
        limit_s = self._settings.startup_timeout_s
        while not stop.requested.wait(_WATCH_S):
            self._process.check()
            for child in self._children:
                child.keep_running()
            self._report_full_disk()
            if self._prober.unanswered_pings * PING_INTERVAL_S > limit_s:
                raise ServeError(f"TorchServe has not responded for {limit_s} s (startup_timeout_s).")
            if self._prober.missing_s > limit_s:
                raise ServeError(
                    f"Fewer than {self._settings.workers} workers have run for {limit_s} s (startup_timeout_s). "
                    "See the log above."
                )

    def stop(self, stop: Stop) -> None:
        """Report "not ready", and wait for the requests in flight. Then all processes may be killed.

        TorchServe's own stop drops requests, and takes 2 s without any. The wait ends at the latest after
        `drain_timeout_s`, or when an immediate stop is requested. Requests that arrive during the wait are served too.

        Raises:
            ServeError: TorchServe has ended during the wait.
        """
        was_ready = self._phase is Phase.READY
        self._phase = Phase.STOPPING
        self._prober.stop()
        self._drain(stop, was_ready)

    def _children_follow(self) -> bool:
        """Return whether every further process knows the version of the model that answers."""
        return all(child.is_current() for child in self._children)

    def _check_workers(self) -> None:
        """Send self-checks until every worker has passed one; then start the probes."""
        while self._phase is Phase.STARTING and not self._all_checked():
            try:
                worker = self.client.first_self_check(self._token)
            except ServeError as error:
                self._check_error = error
                return
            self._checked = {pid for pid in self._checked | {worker or 0} if pid and is_running(pid)}
            time.sleep(_POLL_S)
        for child in self._children:
            child.open()
        self._prober.start()

    def _all_checked(self) -> bool:
        return len(self._checked) >= self._settings.workers

    def _drain(self, stop: Stop, was_ready: bool) -> None:
        """Wait until the further processes have ended, the edge first, and TorchServe has no request.

        A client that keeps an idle connection open does not notice the stop. It is waited for only a few seconds.
        """
        limit_s = self._settings.drain_timeout_s
        deadline = time.monotonic() + limit_s
        in_flight = InFlight(self.client, self.worker_metrics, self.pid, self._settings.max_batch_delay_ms)

        def wait_until(condition: Callable[[], bool]) -> bool:
            while not (condition() or stop.immediate.is_set()):
                self._process.check()
                if time.monotonic() > deadline:
                    return False
                stop.immediate.wait(_POLL_S)
            return True

        def idle() -> bool:
            # During the start Java is never quiet, and TorchServe itself reports all there is
            return in_flight.quiet_s() > _IDLE_CONNECTIONS_S if was_ready else not in_flight.seen()

        def none() -> bool:
            return in_flight.none() if was_ready else not in_flight.seen()

        for child in self._children:
            child.process.stop_gracefully()
            wait_until(partial(self._is_finished, child, idle))
            child.process.kill()
        if not wait_until(none):
            log(f"Requests were still in flight after {limit_s} s (drain_timeout_s).")

    def _is_finished(self, child: Child, idle: Callable[[], bool]) -> bool:
        """Return whether a process that stops has ended or has no clients, or whether the server is idle."""
        port = {EDGE: self._settings.edge_port, GATEWAY: self._settings.grpc_port}.get(child.name)
        left = port is not None and not has_clients(child.process.pid, port)
        return left or not child.process.is_running() or idle()

    def _report_full_disk(self) -> None:
        """Log once that the temporary folder is full: workers that run go on, but none can start."""
        full = free_bytes(self._folder) < _FULL_BYTES
        if full and not self._disk_is_full:
            log(f"The temporary folder {self._folder.parent} is full: a worker that ends cannot start.", "ERROR")
        self._disk_is_full = full

    def _progress(self) -> str:
        if self._all_checked():
            return f"all workers have passed their self-check; {self._prober.why_not_ready()}"
        return f"{len(self._checked)} of {self._settings.workers} workers have passed their self-check"


def entry(plan: Plan, folder: Path) -> Address:
    """Return where requests enter that wait for a worker like those of clients: the edge's queue, or TorchServe.

    Args:
        plan: what is served.
        folder: the folder of the instance.
    """
    settings = plan.settings
    return edge.inner(folder) if settings.edge else Address(settings.host_of("rest_port"), settings.rest_port)
