import contextlib
import os
import subprocess
import sys

import click
import psutil
import pytest

from tests.support.server import wait_until
from vinegrape_loadtests.local import server as local_server
from vinegrape_loadtests.local.server import free_port, free_ports, running, serving, starting

# Ignores SIGTERM, and so does its child; prints the child's process id once both run
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


def is_running(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def test_free_ports_are_different_and_cover_every_port_that_the_server_opens_by_default():
    ports = free_ports()
    assert ports.keys() == {"edge_port", "rest_port", "grpc_port", "operations_port"}
    assert len({*ports.values()}) == len(ports)
    assert 1 <= free_port() <= 65535


def test_a_command_that_ignores_sigterm_is_killed_with_its_children_after_an_error(monkeypatch):
    pipe = {"stdout": subprocess.PIPE, "text": True}
    monkeypatch.setattr(local_server, "_STOP_TIMEOUT_S", 0.1)
    with contextlib.suppress(KeyError), running([sys.executable, "-c", STUBBORN], **pipe) as process:
        child = int(process.stdout.readline())
        assert is_running(child)
        raise KeyError
    assert process.returncode == -9
    wait_until(lambda: not is_running(child))


def test_a_command_that_has_exited_by_itself_is_no_error():
    with running([sys.executable, "-c", "pass"]) as process:
        process.wait()
    assert process.returncode == 0


@pytest.mark.live
def test_a_server_that_does_not_start_is_reported_with_its_exit_code(tmp_path):
    missing = str(tmp_path / "none.mar")
    with (
        pytest.raises(click.ClickException, match="exited with code 1"),
        serving("--archive", missing, stderr=subprocess.DEVNULL),
    ):
        pass


@pytest.mark.live
@pytest.mark.xdist_group("timing")
def test_a_server_gets_its_environment_ports_and_log_and_is_stopped(tiny_archive, tmp_path):
    ports, log = free_ports(), tmp_path / "log"
    environment = {**os.environ, "VINEGRAPE_ARCHIVE": str(tiny_archive), "VINEGRAPE_WORKERS": "1"}
    with log.open("w") as file, starting(ports=ports, environment=environment, stdout=file, stderr=file) as server:
        server.wait_until_ready()
        assert server.ports == ports
        assert server.predictions_url == f"http://127.0.0.1:{ports['rest_port']}/predictions/vinegrape"
        family = [server.process.pid, *(p.pid for p in psutil.Process(server.process.pid).children(recursive=True))]
        assert len(family) >= 3  # supervisor, Java, worker
    assert server.process.returncode == 0
    assert not [pid for pid in family if is_running(pid)]
    assert str(ports["rest_port"]) in log.read_text()
