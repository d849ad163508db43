"""A server starts, and ends while no request is in flight."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import program
from tests.support.first_process import handles, starting_first_process
from tests.support.processes import STOP_S, assert_all_ended, command_line, descendants, temporary_folder, workers
from tests.support.repack import read_self_check, with_entry, with_file
from tests.support.server import (
    free_ports,
    listens,
    run_command,
    serve_command,
    serving,
    starting,
    wait_until,
)
from vinegrape_handler.metadata import METADATA_FILE

pytestmark = pytest.mark.live


def assert_nothing_left(processes, folder, ports):
    assert_all_ended(processes)
    assert not folder.exists()
    assert not any(listens("127.0.0.1", port) for port in ports.values())


def assert_no_traceback(log):
    """Check that the server logged none. TorchServe logs one if Java ends while it measures the machine."""
    assert "/vinegrape_server/" not in log.read_text()


@pytest.mark.parametrize(
    ("archive_name", "backend", "number"),
    [
        pytest.param("tiny_archive", "onnx_fp32", signal.SIGINT, id="fp32"),
        pytest.param("tiny_torch_archive", "torchscript", signal.SIGTERM, id="torchscript", marks=pytest.mark.nightly),
    ],
)
def test_a_server_responds_and_a_signal_ends_all_its_processes(tmp_path, request, archive_name, backend, number):
    archive = request.getfixturevalue(archive_name)
    metadata, images = read_self_check(archive)
    with serving(archive, tmp_path / "log", backend=backend) as live:
        wait_until(lambda: str(live.ports["rest_port"]) in live.log.read_text())
        assert backend in live.log.read_text()
        description = live.client.get(live.url, headers={"accept": "application/json"}).json()
        assert description["backend"] == backend
        for image, check in zip(images, metadata.self_check, strict=True):
            answer = live.post(image).json()
            np.testing.assert_allclose(list(answer["probabilities"].values()), check.probabilities[backend], atol=1e-3)
            assert json.loads(live.call(image)) == answer
        processes, folder = descendants(live.process), temporary_folder(live.process)
        assert len(workers(live.process)) == 1
        live.process.send_signal(number)
        assert live.process.wait(STOP_S) == 0
        assert_nothing_left(processes, folder, live.ports)
        assert_no_traceback(live.log)


def test_a_terminal_that_is_closed_during_the_start_ends_the_server(tiny_archive, tmp_path):
    with starting(tiny_archive, tmp_path / "log") as live:
        wait_until(lambda: any("ModelServer" in command_line(process) for process in descendants(live.process)))
        processes, folder = descendants(live.process), temporary_folder(live.process)
        live.process.send_signal(signal.SIGHUP)
        assert live.process.wait(STOP_S) == 0
        assert_nothing_left(processes, folder, live.ports)
        assert str(live.ports["rest_port"]) not in live.log.read_text()  # it did not become ready
        assert_no_traceback(live.log)


def test_a_worker_that_cannot_start_ends_the_server_with_the_reason(tiny_archive, tmp_path):
    """The recorded probabilities of this archive are wrong: 1 for the last class, for every self-check image."""
    metadata, _ = read_self_check(tiny_archive)
    wrong = dict.fromkeys(("onnx_int8", "onnx_fp32"), [0.0] * (len(metadata.classes) - 1) + [1.0])
    checks = tuple(dataclasses.replace(check, probabilities=wrong) for check in metadata.self_check)
    changed = dataclasses.replace(metadata, self_check=checks).to_json()
    archive = with_file(tiny_archive, tmp_path, METADATA_FILE, changed)
    result = run_command(serve_command(archive, workers=2, startup_timeout_s=600, **free_ports()))
    assert (result.returncode, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("vinegrape: ")
    assert "0.png" in line
    assert "onnx_int8" in line


def test_a_second_server_on_the_same_ports_is_refused(tiny_server, tiny_archive):
    result = run_command(serve_command(tiny_archive, **tiny_server.ports))
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert f"127.0.0.1:{tiny_server.ports['rest_port']} (Address already in use)" in line
    assert "--rest-port" in line


def test_of_two_servers_that_start_at_once_on_the_same_ports_one_serves_and_the_other_says_why(tiny_archive, tmp_path):
    ports = free_ports()
    with (
        starting(tiny_archive, tmp_path / "first", **ports) as first,
        starting(tiny_archive, tmp_path / "second", **ports) as second,
    ):
        wait_until(lambda: any(live.process.poll() is not None for live in (first, second)))
        refused, served = (first, second) if first.process.poll() is not None else (second, first)
        served.wait_until_ready()
        assert refused.process.returncode == 1
        (line,) = refused.log.read_text().splitlines()
        assert line.startswith("vinegrape: Cannot listen on 127.0.0.1:")
        assert line.endswith("PORT")


def test_a_server_is_ready_once_every_worker_has_passed_its_self_check(tiny_archive, tmp_path):
    """One of two workers waits before it loads the model. TorchServe is healthy then, but the service is not ready."""
    first, go = tmp_path / "first", tmp_path / "go"
    code = f"""
import time
from pathlib import Path
from vinegrape_handler.handler import Handler

class Waits(Handler):
    def initialize(self, context):
        try:
            Path({str(first)!r}).mkdir()
        except FileExistsError:
            while not Path({str(go)!r}).exists():
                time.sleep(0.05)
        super().initialize(context)
"""
    with starting(with_entry(tiny_archive, tmp_path, code), tmp_path / "log", workers=2) as live:
        wait_until(lambda: listens("127.0.0.1", live.ports["operations_port"]))
        wait_until(lambda: "1 of 2" in live.operations("/readyz").text)
        assert live.operations("/readyz").status_code == 503
        assert live.client.get("/ping").json() == {"status": "Healthy"}
        live_probe = live.operations("/livez")
        assert (live_probe.status_code, live_probe.text) == (200, "ok\n")
        go.touch()
        wait_until(live.is_ready)
        assert live.operations("/readyz").text == "ok\n"
        assert live.metrics()[("vinegrape_workers_ready",)] == 2


# Process 1 of a namespace


def test_a_server_that_is_process_1_responds_and_ends(tiny_archive, image, tmp_path):
    with starting_first_process(tiny_archive, tmp_path / "log") as (live, first):
        live.wait_until_ready()
        processes = first.children(recursive=True)
        assert live.post(image).status_code == 200
        first.send_signal(signal.SIGTERM)
        assert live.process.wait(STOP_S) == 0
        assert_all_ended(processes)


def test_a_signal_ends_process_1_before_it_has_started_anything(tiny_archive, tmp_path):
    with starting_first_process(tiny_archive, tmp_path / "log") as (live, first):
        wait_until(lambda: handles(first, signal.SIGTERM))
        first.send_signal(signal.SIGTERM)
        assert live.process.wait(STOP_S) == 0
        assert str(live.ports["rest_port"]) not in live.log.read_text()


@pytest.mark.tools
def test_an_edge_that_cannot_start_ends_the_start(tiny_archive, tmp_path):
    """It needs more open files than are allowed. The limit for the start itself is two minutes."""
    program("haproxy", "haproxy")
    serve = Path(sys.executable).with_name("vinegrape")
    settings = {"ARCHIVE": tiny_archive, "WORKERS": 1, "EDGE": 1, **free_ports()}
    variables = {f"VINEGRAPE_{name.upper()}": str(value) for name, value in settings.items()}
    result = subprocess.run(
        ["prlimit", "--nofile=1024:1024", str(serve), "serve"],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1
    assert "Cannot raise FD limit" in result.stderr
    assert result.stderr.rstrip().endswith("in a row that failed.")
