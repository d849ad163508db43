"""The phases of a server, with a Python script instead of `java`. tests/serving tests them with TorchServe."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import MappingProxyType

import pytest

from tests.support.archives import plan
from tests.support.metadata import METADATA
from tests.support.server import wait_until
from vinegrape_handler.contract import START_FAILED
from vinegrape_loadtests.local.server import free_port, free_ports
from vinegrape_server import supervisor as module
from vinegrape_server.errors import ServeError
from vinegrape_server.host.processes import is_running
from vinegrape_server.host.signals import Stop
from vinegrape_server.plan import Served
from vinegrape_server.supervisor import Supervisor
from vinegrape_server.torchserve import configuration

# Responds to self-checks on the REST port and reports its queue on the management port. SIGUSR1 ends its only worker
_JAVA = """\
#!{python}
import itertools, json, os, signal, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from vinegrape_handler.contract import SELF_CHECK_HEADER, SELF_CHECK_VARIABLE, SelfCheckAnswer
from vinegrape_handler.metrics import Metrics

options = json.loads(os.environ["STAND_IN"])
metrics = Metrics(("Ak",))
metrics.workers_ready.set(1)
signal.signal(signal.SIGUSR1, lambda *_: metrics.workers_ready.set(0))
workers = itertools.cycle([os.getpid(), os.getppid()])

class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        with metrics.time_batch():
            self.do_GET()

    def do_GET(self):
        status, body = 200, [
            {{"modelVersion": "1", "workers": [], "jobQueueStatus": {{"pendingRequests": options["queue"]}}}}
        ]
        if self.path == "/predictions/vinegrape":
            passes = options["passes"] and self.headers[SELF_CHECK_HEADER] == os.environ[SELF_CHECK_VARIABLE]
            status = 200 if passes else 404
            body = SelfCheckAnswer(next(workers), options["version"]).to_body("vinegrape") if passes else {{}}
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_):
        pass

for port in options["ports"]:
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever).start()
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Create a supervisor whose `java` is the script above, or another one."""

    def create(script: str = "", children=MappingProxyType({}), passes=True, queue=0, **values) -> Supervisor:
        settings = {**free_ports(), "management_port": free_port(), "workers": 1, **values}
        options = {
            "ports": [settings["rest_port"], settings["management_port"]],
            "version": METADATA.version, "passes": passes, "queue": queue,
        }  # fmt: skip
        monkeypatch.setenv("STAND_IN", json.dumps(options))
        java = tmp_path / "java"
        java.write_text(script or _JAVA.format(python=sys.executable))
        java.chmod(0o755)
        folder = tmp_path / "instance"
        (folder / configuration.METRICS_FOLDER).mkdir(parents=True)
        return Supervisor(Served(plan(**settings)), Path(java), folder, children)

    return create


def shell(code: str) -> str:
    return f"#!/bin/sh\n{code}\n"


# Start


def test_a_server_is_ready_once_every_worker_has_passed_a_self_check(start):
    with start(workers=2) as supervisor:
        assert re.match(r"starting: [01] of 2 workers have passed their self-check", supervisor.why_not_ready())
        assert supervisor.why_not_live() == ""
        assert supervisor.wait_until_ready(Stop())
        assert supervisor.why_not_ready() == ""
        assert supervisor.why_not_live() == ""


def test_a_stop_during_the_start_is_no_error(start):
    stop = Stop()
    with start(passes=False) as supervisor:
        threading.Timer(0.2, stop.request).start()
        assert not supervisor.wait_until_ready(stop)
        supervisor.stop(stop)


def test_a_start_that_takes_too_long_is_reported(start):
    with start(passes=False, startup_timeout_s=1) as supervisor:
        expected = r"^0 of 1 workers have passed their self-check within 1 s \(startup_timeout_s\)\. See the log"
        with pytest.raises(ServeError, match=expected):
            supervisor.wait_until_ready(Stop())


def test_a_worker_that_cannot_start_is_reported_with_its_reason(start):
    script = shell(f"echo '{START_FAILED}no weights'; sleep 600")
    with start(script) as supervisor, pytest.raises(ServeError, match=r"^A worker cannot start: no weights$"):
        supervisor.wait_until_ready(Stop())


def test_an_end_during_the_start_is_reported(start):
    with start(shell("exit 3")) as supervisor:
        with pytest.raises(ServeError, match="TorchServe ended with exit code 3"):
            supervisor.wait_until_ready(Stop())
        assert supervisor.why_not_live() == "TorchServe has ended"


# Watch


def test_watching_ends_with_a_stop(start):
    stop = Stop()
    with start() as supervisor:
        assert supervisor.wait_until_ready(stop)
        threading.Timer(0.2, stop.request).start()
        supervisor.watch(stop)


def test_a_killed_torchserve_is_reported(start):
    with start() as supervisor:
        assert supervisor.wait_until_ready(Stop())
        os.kill(supervisor.pid, signal.SIGKILL)
        with pytest.raises(ServeError, match="TorchServe was killed by SIGKILL"):
            supervisor.watch(Stop())


def test_a_torchserve_that_does_not_respond_is_reported(start):
    with start(startup_timeout_s=2) as supervisor:
        assert supervisor.wait_until_ready(Stop())
        os.kill(supervisor.pid, signal.SIGSTOP)
        with pytest.raises(ServeError, match=r"^TorchServe has not responded for 2 s \(startup_timeout_s\)\.$"):
            supervisor.watch(Stop())


def test_a_server_without_workers_is_not_ready_and_is_reported(start):
    with start(startup_timeout_s=2) as supervisor:
        assert supervisor.wait_until_ready(Stop())
        os.kill(supervisor.pid, signal.SIGUSR1)
        wait_until(lambda: supervisor.why_not_ready() == "no worker is running")
        assert supervisor.why_not_live() == ""
        expected = r"^Fewer than 1 workers have run for 2 s \(startup_timeout_s\)\. See the log"
        with pytest.raises(ServeError, match=expected):
            supervisor.watch(Stop())


def test_a_torchserve_that_was_suspended_with_the_supervisor_is_live(start, monkeypatch):
    """Pings are counted, and not the seconds of a clock: a suspended process sends none."""
    monkeypatch.setattr(module, "_NOT_LIVE_PINGS", 2)
    with start() as supervisor:
        assert supervisor.wait_until_ready(Stop())
        os.kill(supervisor.pid, signal.SIGSTOP)
        wait_until(lambda: supervisor.why_not_live() == "TorchServe does not respond")
        os.kill(supervisor.pid, signal.SIGCONT)
        wait_until(lambda: supervisor.why_not_live() == "")


def test_a_full_temporary_folder_is_logged_once(start, monkeypatch, capsys):
    monkeypatch.setattr(module, "_FULL_BYTES", 10**15)
    stop = Stop()
    with start() as supervisor:
        assert supervisor.wait_until_ready(stop)
        threading.Timer(1, stop.request).start()
        supervisor.watch(stop)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "is full" in line]
    assert line.startswith("vinegrape: The temporary folder /")


# Further processes


class Further:
    """A process that ends by itself some time after it was asked to."""

    def __init__(self, log: list[str], grace="0.5") -> None:
        self._log, self._grace = log, grace
        self._process = subprocess.Popen(["/bin/sh", "-c", "exec sleep 600"])
        self.pid = self._process.pid

    def is_running(self) -> bool:
        return self._process.poll() is None

    def check(self) -> None:
        if not self.is_running():
            raise ServeError("A process has ended.")

    def stop_gracefully(self) -> None:
        self._log.append("stop")
        threading.Timer(float(self._grace), self._process.terminate).start()

    def kill(self) -> None:
        self._log.append(f"kill {self._process.poll()}")
        self._process.kill()
        self._process.wait()


def test_a_further_process_is_started_again_while_the_server_runs(start):
    stop = Stop()
    with start(children={"second": lambda: Further([])}) as supervisor:
        assert supervisor.wait_until_ready(stop)
        (first,) = supervisor.pids()["second"]
        thread = threading.Thread(target=supervisor.watch, args=(stop,))
        thread.start()
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: supervisor.pids()["second"] != [first])
        assert supervisor.restarts() == {"second": 1}
        stop.request()
        thread.join(60)


def test_a_stop_waits_for_the_further_processes_in_their_order(start):
    log: list[str] = []
    children = {"first": lambda: Further(log), "second": lambda: Further(log)}
    with start(children=children) as supervisor:
        assert supervisor.wait_until_ready(Stop())
        first, second = supervisor.pids()["first"] + supervisor.pids()["second"]
        supervisor.stop(Stop())
        assert log == ["stop", "kill -15", "stop", "kill -15"]  # both ended by themselves
        assert not is_running(first)
        assert not is_running(second)


def test_a_stop_waits_only_some_seconds_for_idle_connections(start, monkeypatch, capsys):
    """The process does not end, because a client keeps a connection open."""
    monkeypatch.setattr(module, "_IDLE_CONNECTIONS_S", 0.2)
    with start(children={"first": lambda: Further([], grace="600")}, drain_timeout_s=1000) as supervisor:
        assert supervisor.wait_until_ready(Stop())
        supervisor.stop(Stop())
    assert "in flight" not in capsys.readouterr().err


# Stop


def test_a_stopping_server_is_not_ready_and_ends(start):
    with start() as supervisor:
        assert supervisor.wait_until_ready(Stop())
        supervisor.stop(Stop())
        assert supervisor.why_not_ready() == "stopping"
        assert supervisor.why_not_live() == ""
    assert supervisor.why_not_live() == "TorchServe has ended"


def test_a_stop_waits_for_queued_requests_until_the_limit(start, capsys):
    with start(queue=1, drain_timeout_s=1) as supervisor:
        assert supervisor.wait_until_ready(Stop())
        supervisor.stop(Stop())
    expected = "vinegrape: Requests were still in flight after 1 s (drain_timeout_s).\n"
    assert capsys.readouterr().err == expected


def test_an_immediate_stop_does_not_wait_for_queued_requests(start):
    stop = Stop()
    with start(queue=1, drain_timeout_s=1000) as supervisor:
        assert supervisor.wait_until_ready(stop)
        thread = threading.Thread(target=supervisor.stop, args=(stop,))
        thread.start()
        wait_until(lambda: supervisor.why_not_ready() == "stopping")
        assert supervisor.why_not_live() == ""
        stop.immediate.set()
        thread.join(60)
        assert not thread.is_alive()
