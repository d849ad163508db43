"""Run TorchServe in the foreground: check, start, wait for the first right answer, watch, stop."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from vinegrape_handler.errors import SettingError, VinegrapeError
from vinegrape_handler.handler import START_FAILED

from vinegrape_server import plan as planning
from vinegrape_server import torchserve
from vinegrape_server.archive_info import ArchiveInfo
from vinegrape_server.java import find_java
from vinegrape_server.plan import Plan
from vinegrape_server.settings import ServeSettings

# Said at every start, whatever the settings; by Java's logging, of every machine without a GPU, before anything works
_CHATTER = ("WARNING: sun.reflect.Reflection.getCallerClass", "nvidia-smi not available", "Model server started.")
_POLL_S = 0.05
# To ourselves, and so past any proxy that the environment names
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_STOP_S = 10  # until a TorchServe that was asked to end is killed


class ServeError(VinegrapeError):
    """TorchServe did not start, or ended by itself."""


def serve(settings: ServeSettings) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP.

    Raises:
        VinegrapeError: a setting, archive, Java or port that cannot work, or a server that ended by itself.
    """
    archive = ArchiveInfo.read(Path(settings.archive))
    torch_installed = planning.torch_installed()
    plan = planning.make_plan(settings, archive, planning.count_gpus(ask_torch=torch_installed), torch_installed)
    java = find_java()
    _check_ports(settings)
    with tempfile.TemporaryDirectory(prefix="vinegrape-") as name, _stop_signals() as stop:
        folder = Path(name)
        torchserve.prepare(plan, folder)
        with TorchServe(plan, java, folder) as server:
            if server.wait_until_right(stop):
                print(banner(plan), flush=True)  # noqa: T201
                server.watch(stop)
            print("Stopping.", flush=True)  # noqa: T201


class TorchServe:
    """One running TorchServe, with its workers; a context manager that ends them all."""

    def __init__(self, plan: Plan, java: Path, folder: Path) -> None:
        self._plan = plan
        self._failure = ""
        self._held_log: list[str] | None = []
        self._log_lock = threading.Lock()
        self._process = subprocess.Popen(  # noqa: S603
            torchserve.command(plan, java, folder),
            env=torchserve.environment(plan, folder),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C reaches us alone, and its process group can be ended as one
        )
        self._log = threading.Thread(target=self._forward_log, daemon=True)
        self._log.start()

    def __enter__(self) -> TorchServe:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None:  # else there is nothing to finish, and TorchServe takes 6 s to end workers that cannot start
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # workers that outlived it
        self._process.wait()
        self._log.join(_STOP_S)

    def wait_until_right(self, stop: threading.Event) -> bool:
        """Ask for the archive's own picture until the answer comes. `/ping` says Healthy before a model is loaded.

        Returns:
            False if asked to stop meanwhile.

        Raises:
            ServeError: no right answer, with the reason if a worker gave one.
        """
        deadline = time.monotonic() + self._plan.settings.startup_timeout_s
        while not stop.wait(_POLL_S):
            self._check_alive()
            if time.monotonic() > deadline:
                seconds = self._plan.settings.startup_timeout_s
                self._release_log()
                raise ServeError(f"No right answer within {seconds} s (startup_timeout_s); the log above says more.")
            if self._answers_right():
                self._release_log()
                return True
        return False

    def watch(self, stop: threading.Event) -> None:
        """Return when asked to stop.

        Raises:
            ServeError: TorchServe ended by itself.
        """
        while not stop.wait(0.2):
            self._check_alive()

    def _answers_right(self) -> bool:
        settings, archive = self._plan.settings, self._plan.archive
        host = reachable(settings.host)
        url = f"http://{host}:{settings.rest_port}/predictions/{archive.metadata.name}"
        request = urllib.request.Request(url, archive.picture, {"Content-Type": "image/png"})
        try:
            with _DIRECT.open(request, timeout=5) as response:
                answer = json.load(response)
        except (OSError, ValueError):
            return False
        # that the probabilities are right too, each worker has checked before it loaded
        return bool(answer.get("model", {}).get("version") == archive.metadata.version)

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
                    sys.stderr.write(line)
                    sys.stderr.flush()
                elif failed:
                    self._failure = self._failure or reason
                else:
                    self._held_log.append(line)

    def _release_log(self) -> None:
        """Print what waits, and from now on every line as it comes."""
        with self._log_lock:
            sys.stderr.writelines(self._held_log or ())
            sys.stderr.flush()
            self._held_log = None


def reachable(host: str) -> str:
    """An address under which this machine reaches what listens on `host`."""
    return torchserve.LOOPBACK if host == "0.0.0.0" else host  # noqa: S104


def banner(plan: Plan) -> str:
    """One screen that says where the server listens and what to try."""
    settings, metadata = plan.settings, plan.archive.metadata
    host = settings.host
    url = f"http://{reachable(host)}:{settings.rest_port}/predictions/{metadata.name}"
    device, delay = f"{plan.gpus} GPU" if plan.gpus else "CPU", settings.max_batch_delay_ms
    workers = "1 worker" if plan.workers == 1 else f"{plan.workers} workers"
    return f"""
  {metadata.name} {metadata.version}: {metadata.architecture}, {len(metadata.classes)} classes
  {plan.worker.backend} on {device}, {workers}, batches of {plan.batch_size} within {delay} ms

    REST        http://{host}:{settings.rest_port}
    gRPC        {host}:{settings.grpc_port}
    metrics     http://{host}:{settings.metrics_port}/metrics
    management  http://{torchserve.LOOPBACK}:{settings.management_port}, from this machine only

  Try:   curl -T docs/leaf.png {url}
  About: curl -H 'Accept: application/json' {url}
  Stop:  Ctrl-C
"""


def _check_ports(settings: ServeSettings) -> None:
    for name, port in settings.ports.items():
        host = torchserve.LOOPBACK if "management" in name else settings.host
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        except OSError as error:
            option = name.replace("_", "-")
            raise SettingError(
                f"Cannot listen on {host}:{port} ({error.strerror}). Choose another: --{option} PORT"
            ) from error


@contextlib.contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C, an orchestrator or a closed terminal sets."""
    stop = threading.Event()

    def set_stop(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, set_stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
