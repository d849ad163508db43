"""One running TorchServe with its workers: its start, its log, its health, its end."""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
from vinegrape_handler.handler import START_FAILED
from vinegrape_handler.metrics import BATCHES_IN_PROGRESS, WORKERS_READY
from vinegrape_handler.request import SELF_CHECK_HEADER, SELF_CHECK_VARIABLE

from vinegrape_server import torchserve
from vinegrape_server.console import say
from vinegrape_server.errors import ServeError
from vinegrape_server.http_get import LOOPBACK, Answer, get
from vinegrape_server.plan import Plan
from vinegrape_server.signals import Stop
from vinegrape_server.worker_metrics import WorkerMetrics, lives

# Said at every start: by Java of TorchServe's libraries, of every machine without a GPU, before anything works
_CHATTER = ("WARNING: ", "Picked up JAVA_TOOL_OPTIONS: ", "nvidia-smi not available", "Model server started.")
_POLL_S = 0.05
_WATCH_S = 0.2
_SELF_CHECK_S = 5  # until one is given up
_PING_S = 1  # the same, of what TorchServe's frontend answers by itself; and how often it is asked
_HUNG_S = 10  # without an answer of the frontend
_STOP_S = 10  # until a TorchServe that was asked to end is killed
# On its way from the client to the queue, and from there to the worker, a request is counted nowhere. It takes time
# where it is large, which is time of a processor.
_QUIET_S = 0.5
_QUIET_CPU_S = 0.1  # in that time: a fifth of a core; an idle Java and our own questions take less

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class TorchServe:
    """One running TorchServe, with its workers; a context manager that leaves none of them behind."""

    def __init__(self, plan: Plan, java: Path, folder: Path) -> None:
        self._plan = plan
        self._failure = ""
        self._held_log: list[str] | None = []
        self._log_lock = threading.Lock()
        self._answered: set[int] = set()
        self._state = "starting"
        self._heard_at = 0.0
        self._self_check_token = secrets.token_hex()
        self.worker_metrics = WorkerMetrics(folder / torchserve.METRICS)
        self._process = subprocess.Popen(  # noqa: S603
            torchserve.command(plan, java, folder),
            env={**torchserve.environment(plan, folder), SELF_CHECK_VARIABLE: self._self_check_token},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C reaches us alone, and its process group can be ended as one
            preexec_fn=_end_with_parent,
        )
        self._log = threading.Thread(target=self._forward_log, daemon=True)
        self._log.start()

    def __enter__(self) -> TorchServe:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._log.join(_STOP_S)

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
        return self.why_not_live() or ("" if self.worker_metrics.gauge(WORKERS_READY[0]) else "no worker runs")

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
                self._release_log()
                raise ServeError(
                    f"{len(self._answered)} of {self._plan.workers} workers answered right within "
                    f"{self._plan.settings.startup_timeout_s} s (startup_timeout_s); the log above says more."
                )
            self._answered = {pid for pid in self._answered if lives(pid)} | self._self_check()
            if len(self._answered) >= self._plan.workers:
                self._release_log()
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
            if self._has_worker():
                worked_at = time.monotonic()
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
        settings = self._plan.settings
        enough = settings.max_batch_delay_ms / 1000 + _QUIET_S
        begin = quiet_since = time.monotonic()
        cpu_s = self._cpu_s()
        while not stop.now.wait(_POLL_S):
            self._check_alive()
            if self._busy() or self._cpu_s() - cpu_s > _QUIET_CPU_S:
                quiet_since, cpu_s = time.monotonic(), self._cpu_s()
            elif time.monotonic() - quiet_since > enough:
                return
            if time.monotonic() - begin > settings.drain_timeout_s:
                say(
                    f"vinegrape: Requests were still in flight after {settings.drain_timeout_s} s (drain_timeout_s).\n",
                    sys.stderr,
                )
                return

    def _busy(self) -> bool:
        """Whether a request waits in the queue or is with a worker, or nobody can say.

        The queue first: a request goes from there to a worker, and would be missed the other way round.
        """
        name, port = self._plan.archive.metadata.name, self._plan.settings.management_port
        try:
            answer = get(LOOPBACK, port, f"/models/{name}", _PING_S)
            waiting = json.loads(answer.body)[0]["jobQueueStatus"]["pendingRequests"]
            return bool(waiting or self.worker_metrics.gauge(BATCHES_IN_PROGRESS[0]))
        except (OSError, ValueError, LookupError, TypeError):
            return True

    def _cpu_s(self) -> float:
        """Seconds of processor time that Java and the workers have taken."""
        try:
            java = psutil.Process(self.pid)
            times = [process.cpu_times() for process in (java, *find_workers(java))]
        except psutil.Error:  # one has just ended; a sum without it would look like rest
            return math.inf
        return float(sum(each.user + each.system for each in times))

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
            return bool(self.worker_metrics.gauge(WORKERS_READY[0]))
        except OSError:
            return True

    def _self_check(self) -> set[int]:
        """The process id of the worker that has just passed a self-check; empty if none did."""
        metadata = self._plan.archive.metadata
        try:
            answer = self._ask({SELF_CHECK_HEADER: self._self_check_token})
        except OSError:
            return set()
        if answer.status == 400:
            raise ServeError(
                f"The handler in {self._plan.archive.path} is older than this server. Pack it again: "
                "vinegrape archive OLD.mar NEW.mar"
            )
        try:
            body = json.loads(answer.body)
            return {body["worker"]} if body["model"]["version"] == metadata.version else set()
        except (ValueError, LookupError, TypeError):  # TorchServe's own answer while the model loads
            return set()

    def _ask(self, headers: dict[str, str]) -> Answer:
        settings = self._plan.settings
        path = f"/predictions/{self._plan.archive.metadata.name}"
        return get(settings.host, settings.rest_port, path, _SELF_CHECK_S, headers)

    def _check_alive(self) -> None:
        """Raise a ServeError if TorchServe has ended, or if a worker has said why it cannot start.

        Once the server has answered, a worker's failure is no reason to end it: the others answer while TorchServe
        tries again.
        """
        code = self._process.poll()
        if code is not None:
            self._log.join(_STOP_S)  # its last words
        if self._failure:
            raise ServeError(f"A worker cannot start: {self._failure}")
        if code is not None:
            self._release_log()
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            raise ServeError(f"TorchServe {how}; the log above says more.")

    def _forward_log(self) -> None:
        """Pass TorchServe's log on; what comes before the first answer waits, for a reason may make it needless."""
        for line in self._process.stdout or ():
            if line.startswith(_CHATTER):
                continue
            _, failed, reason = line.rstrip("\n").partition(START_FAILED)
            with self._log_lock:
                if self._held_log is None:
                    say(line, sys.stderr)
                elif failed:
                    self._failure = self._failure or reason
                else:
                    self._held_log.append(line)

    def _release_log(self) -> None:
        """Print what waits, and from now on every line as it comes."""
        with self._log_lock:
            say("".join(self._held_log or ()), sys.stderr)
            self._held_log = None


def _end_with_parent() -> None:
    """Have the kernel kill this process when its parent dies, even by a signal that nobody can handle."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def find_workers(java: psutil.Process) -> list[psutil.Process]:
    """TorchServe's workers, and not what else it starts, such as what measures the machine once a minute."""
    found = []
    with contextlib.suppress(psutil.Error):  # Java has just ended
        for process in java.children():
            with contextlib.suppress(psutil.Error):  # or this one
                if any("model_service_worker" in word for word in process.cmdline()):
                    found.append(process)
    return found
