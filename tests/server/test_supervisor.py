"""The phases of a server, with a Python script instead of `java`. tests/serving tests them with TorchServe."""

import json
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from tests.support.archives import plan
from tests.support.metadata import METADATA
from tests.support.server import wait_until
from vinegrape_handler.contract import START_FAILED
from vinegrape_loadtests.local.server import free_ports
from vinegrape_server.errors import ServeError
from vinegrape_server.host.signals import Stop
from vinegrape_server.supervisor import Supervisor
from vinegrape_server.torchserve import configuration

# Responds to self-checks on the REST port and reports its queue on the management port
_JAVA = """\
#!{python}
import itertools, json, os, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from vinegrape_handler.contract import SELF_CHECK_HEADER, SELF_CHECK_VARIABLE, SelfCheckAnswer
from vinegrape_handler.metrics import Metrics

options = json.loads(os.environ["STAND_IN"])
Metrics(("Ak",)).workers_ready.set(options["workers_ready"])
workers = itertools.cycle([os.getpid(), os.getppid()])

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        status, body = 200, [{{"jobQueueStatus": {{"pendingRequests": options["queue"]}}}}]
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

    def create(script: str = "", passes=True, workers_ready=1, queue=0, **values) -> Supervisor:
        settings = {**free_ports(), "workers": 1, **values}
        options = {
            "ports": [settings["rest_port"], settings["management_port"]],
            "version": METADATA.version, "passes": passes, "workers_ready": workers_ready, "queue": queue,
        }  # fmt: skip
        monkeypatch.setenv("STAND_IN", json.dumps(options))
        java = tmp_path / "java"
        java.write_text(script or _JAVA.format(python=sys.executable))
        java.chmod(0o755)
        folder = tmp_path / "instance"
        (folder / configuration.METRICS_FOLDER).mkdir(parents=True)
        return Supervisor(plan(**settings), Path(java), folder)

    return create


def shell(code: str) -> str:
    return f"#!/bin/sh\n{code}\n"


# Start


def test_a_server_is_ready_once_every_worker_has_passed_a_self_check(start):
    with start(workers=2) as supervisor:
        assert supervisor.why_not_ready() == "starting: 0 of 2 workers have passed their self-check"
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
    with start(workers_ready=0, startup_timeout_s=2) as supervisor:
        assert supervisor.wait_until_ready(Stop())
        assert supervisor.why_not_ready() == "no worker is running"
        assert supervisor.why_not_live() == ""
        with pytest.raises(ServeError, match=r"^No worker has run for 2 s \(startup_timeout_s\)\. See the log"):
            supervisor.watch(Stop())


# Stop


def test_a_stopping_server_is_not_ready_and_ends(start):
    with start() as supervisor:
        assert supervisor.wait_until_ready(Stop())
        supervisor.stop(Stop())
        assert supervisor.why_not_ready() == "stopping"
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
