"""A server's start, its end, and what happens when a part of it dies."""

import base64
import contextlib
import dataclasses
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import zipfile
from concurrent import futures
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from tests.conftest import program
from tests.support.server import Live, command, serving, starting, wait_for_banner, wait_until, with_entry
from vinegrape_handler.metadata import METADATA_FILE, SELF_CHECK_FOLDER, Metadata
from vinegrape_handler.weights import BACKENDS
from vinegrape_loadtests.local.server import free_ports

STOP_S = 30  # far more than it takes; a bound, so that a test that fails also ends


def family(process) -> list[psutil.Process]:
    """Java and the workers."""
    return psutil.Process(process.pid).children(recursive=True)


def java(process) -> psutil.Process:
    (child,) = psutil.Process(process.pid).children()
    return child


def workers(process) -> list[psutil.Process]:
    return [each for each in family(process) if any("model_service_worker" in part for part in words(each))]


def words(process) -> list[str]:
    """A process's command line; none if it has just ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def temporary_folder(process) -> Path:
    (option,) = [part for part in java(process).cmdline() if part.startswith("-Djava.io.tmpdir=")]
    return Path(option.partition("=")[2])


def listens(address, port) -> bool:
    with socket.socket() as probe:
        probe.settimeout(5)
        return probe.connect_ex((address, port)) == 0


def assert_nothing_left(processes, folder, ports):
    _, alive = psutil.wait_procs(processes, timeout=STOP_S)
    assert not alive
    assert not folder.exists()
    assert not any(listens("127.0.0.1", port) for port in ports.values())


def assert_no_traceback_of_ours(log):
    """Only of ours: TorchServe's look at the machine, once a minute, writes one if Java ends under it."""
    assert "/vinegrape_server/" not in log


def last_line(log) -> str:
    return log.read_text().splitlines()[-1]


def read_self_check(archive) -> tuple[Metadata, list[bytes]]:
    with zipfile.ZipFile(archive) as opened:
        metadata = Metadata.from_json(opened.read(METADATA_FILE))
        return metadata, [opened.read(f"{SELF_CHECK_FOLDER}/{check.file}") for check in metadata.self_check]


def answers(live: Live, picture) -> list[float]:
    return list(live.post(picture).json()["probabilities"].values())


def answers_soon(live: Live, picture) -> bool:
    """TorchServe can lose the request that a dying worker held, and never answer it: ask again instead of waiting."""
    try:
        return live.post(picture, timeout=5).status_code == 200
    except httpx.TimeoutException:
        return False


@pytest.mark.parametrize(
    ("backend", "number"), [("onnx_fp32", signal.SIGINT), ("torchscript", signal.SIGTERM)], ids=["fp32", "torchscript"]
)
def test_a_backend_from_start_to_stop(small_archive, tmp_path, backend, number):
    """It answers as its self-check says; Ctrl-C, or an orchestrator's signal, then ends it and all that it started."""
    metadata, pictures = read_self_check(small_archive)
    with serving(small_archive, tmp_path / "log", backend=backend) as live:
        assert f"{backend} on CPU, 1 worker," in live.log.read_text()
        described = live.client.get(live.url, headers={"accept": "application/json"}).json()
        assert described["backend"] == backend
        for picture, check in zip(pictures, metadata.self_check, strict=True):
            np.testing.assert_allclose(answers(live, picture), check.probabilities[backend], atol=1e-3)
            assert json.loads(live.call(picture)) == live.post(picture).json()
        processes, folder = family(live.process), temporary_folder(live.process)
        assert len(workers(live.process)) == 1
        live.process.send_signal(number)
        assert live.process.wait(STOP_S) == 0
        assert_nothing_left(processes, folder, live.ports)
        assert_no_traceback_of_ours(live.log.read_text())


def test_a_terminal_closed_before_it_answers(small_archive, tmp_path):
    ports = free_ports()
    options = [f"--{name.replace('_', '-')}={port}" for name, port in ports.items()]
    arguments = command("serve", "--archive", str(small_archive), "--workers=1", *options)
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(arguments, stdout=log, stderr=log)
    try:
        wait_until(lambda: any("org.pytorch.serve.ModelServer" in words(each) for each in family(process)))
        processes, folder = family(process), temporary_folder(process)
    finally:
        process.send_signal(signal.SIGHUP)
        code = process.wait(STOP_S)
    assert code == 0
    assert_nothing_left(processes, folder, ports)
    log = (tmp_path / "log").read_text()
    assert "curl" not in log  # no banner: it never answered
    assert_no_traceback_of_ours(log)


def test_a_killed_worker_comes_back_and_a_killed_java_ends_it(small_archive, tmp_path):
    _, (picture, *_) = read_self_check(small_archive)
    with serving(small_archive, tmp_path / "log") as live:
        before = answers(live, picture)
        (worker,) = workers(live.process)
        worker.kill()
        worker.wait(STOP_S)
        wait_until(lambda: answers_soon(live, picture))
        assert answers(live, picture) == before
        (new,) = workers(live.process)
        assert new.pid != worker.pid

        processes, folder = family(live.process), temporary_folder(live.process)
        java(live.process).kill()
        assert live.process.wait(STOP_S) == 1
        assert_nothing_left(processes, folder, live.ports)
        assert last_line(live.log).startswith("vinegrape: TorchServe was killed by SIGKILL")
        assert_no_traceback_of_ours(live.log.read_text())


@pytest.fixture
def tampered(small_archive, tmp_path) -> Path:
    """An archive whose pictures are said to be the last class, for certain."""
    path = tmp_path / "vinegrape.mar"
    with zipfile.ZipFile(small_archive) as source, zipfile.ZipFile(path, "w") as target:
        metadata = Metadata.from_json(source.read(METADATA_FILE))
        wrong = dict.fromkeys(BACKENDS, [0.0] * (len(metadata.classes) - 1) + [1.0])
        checks = tuple(dataclasses.replace(check, probabilities=wrong) for check in metadata.self_check)
        for name in source.namelist():
            changed = dataclasses.replace(metadata, self_check=checks).to_json()
            target.writestr(name, changed if name == METADATA_FILE else source.read(name))
    return path


def test_a_worker_that_cannot_start_ends_it_with_the_reason(tampered):
    options = [f"--{name.replace('_', '-')}={port}" for name, port in free_ports().items()]
    arguments = command("serve", "--archive", str(tampered), "--workers=2", "--startup-timeout-s=600", *options)
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert result.stderr.startswith(
        "vinegrape: A worker cannot start: The self-check of 0.png with onnx_int8 is off by"
    )


def test_management_stays_on_this_machine_when_all_else_does_not(small_archive, tmp_path):
    """127.0.0.2 is this machine too, and stands here for every address that is not 127.0.0.1."""
    _, (picture, *_) = read_self_check(small_archive)
    named = shutil.copy(small_archive, tmp_path / "modèle, 2.mar")  # TorchServe itself could not take this name
    with serving(named, tmp_path / "log", host="0.0.0.0") as live:
        assert live.post(picture).status_code == 200
        assert {name: listens("127.0.0.2", port) for name, port in live.ports.items()} == {
            "rest_port": True, "grpc_port": True, "operations_port": False,
            "metrics_port": False, "management_port": False, "grpc_management_port": False,
        }  # fmt: skip
        assert all(listens("127.0.0.1", port) for port in live.ports.values())


def test_by_default_nothing_leaves_this_machine(server):
    assert all(listens("127.0.0.1", port) for port in server.ports.values())
    assert not any(listens("127.0.0.2", port) for port in server.ports.values())


def test_a_model_from_elsewhere_is_refused(server):
    """Registering one would run its code."""
    management = f"http://127.0.0.1:{server.ports['management_port']}/models"
    for url in ("http://127.0.0.1:1/other.mar", "file:///etc/passwd", "../vinegrape.mar"):
        assert server.client.post(management, params={"url": url}).status_code >= 400
    assert [each["modelName"] for each in server.client.get(management).json()["models"]] == ["vinegrape"]


def test_a_second_server_on_the_same_ports_is_refused(server, archive):
    options = [f"--{name.replace('_', '-')}={port}" for name, port in server.ports.items()]
    result = subprocess.run(
        command("serve", "--archive", str(archive), *options), capture_output=True, text=True, timeout=60,
        env={name: value for name, value in os.environ.items() if not name.startswith("VINEGRAPE_")},
    )  # fmt: skip
    assert result.returncode == 1
    assert f"Cannot listen on 127.0.0.1:{server.ports['rest_port']} (Address already in use)" in result.stderr
    assert len(result.stderr.splitlines()) == 1


# How it ends


@pytest.mark.parametrize("batch_size", [1, 8])
def test_what_is_in_flight_at_a_stop_is_answered(archive, leaf, tmp_path, batch_size):
    """Requests wait in the queue, are on their way to the worker and with it when the signal comes.

    Each has megabytes, so that the way takes time.
    """
    large = many_instances(leaf)
    settings = {"batch_size": batch_size, "drain_timeout_s": 200}
    with serving(archive, tmp_path / "log", **settings) as live, futures.ThreadPoolExecutor(20) as pool:
        before = received(live)
        over_rest = [pool.submit(live.post, large) for _ in range(10)]
        over_grpc = [pool.submit(live.call, large) for _ in range(10)]
        wait_until(lambda: received(live) == before + 20)
        live.process.send_signal(signal.SIGTERM)
        wait_until(lambda: live.operations("/readyz").text == "stopping\n")
        bodies = [answer.result().json() for answer in over_rest]
        bodies += [json.loads(answer.result()) for answer in over_grpc]
        assert {len(body["predictions"]) for body in bodies} == {32}
        assert live.process.wait(STOP_S) == 0


def test_a_closed_terminal_is_no_reason_to_drop_what_is_in_flight(archive, leaf, tmp_path):
    """Nobody reads its last words any more."""
    ours, theirs = pty.openpty()
    large = many_instances(leaf)
    with starting(archive, tmp_path / "log", output=theirs) as live, futures.ThreadPoolExecutor(8) as pool:
        os.close(theirs)
        wait_until(lambda: is_ready(live))
        before = received(live)
        answers = [pool.submit(live.post, large) for _ in range(8)]
        wait_until(lambda: received(live) == before + 8)
        os.close(ours)
        live.process.send_signal(signal.SIGHUP)
        assert {answer.result().status_code for answer in answers} == {200}
        assert live.process.wait(STOP_S) == 0


def test_a_second_signal_does_not_wait(small_archive, tmp_path):
    """A worker that hangs would be waited for; who is in a hurry says so again."""
    _, (picture, *_) = read_self_check(small_archive)
    with serving(small_archive, tmp_path / "log", drain_timeout_s=1000) as live:
        held = workers(live.process)[0]
        held.suspend()  # no answer will ever come
        with futures.ThreadPoolExecutor(4) as pool:
            before = received(live)
            answers = [pool.submit(live.post, picture) for _ in range(4)]
            wait_until(lambda: received(live) == before + 4)
            live.process.send_signal(signal.SIGTERM)
            wait_until(lambda: live.operations("/readyz").text == "stopping\n")
            live.process.send_signal(signal.SIGTERM)
            assert live.process.wait(STOP_S) == 0
            assert all(isinstance(answer.exception(), httpx.TransportError) for answer in answers)


def many_instances(picture) -> bytes:
    return json.dumps({"instances": [{"b64": base64.b64encode(picture).decode()}] * 32}).encode()


def received(live) -> float:
    """Requests that have arrived whole: TorchServe counts each before it queues it."""
    return live.metrics()[("ts_inference_requests_total",)]


def is_ready(live) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return live.operations("/readyz").status_code == 200
    return False


def test_a_server_that_is_killed_takes_all_it_started_with_it(small_archive, tmp_path):
    with serving(small_archive, tmp_path / "log") as live:
        processes, folder = family(live.process), temporary_folder(live.process)
        live.process.kill()
        live.process.wait(STOP_S)
        _, alive = psutil.wait_procs(processes, timeout=STOP_S)
        assert not alive
        assert folder.exists()  # nobody was left to remove it: the next server does
        with serving(small_archive, tmp_path / "next"):
            assert not folder.exists()


def test_without_a_worker_for_as_long_as_a_start_may_take_it_ends(small_archive, tmp_path):
    """TorchServe would give up, and then refuse every request for ever. Here no worker starts a second time."""
    started = tmp_path / "started"
    code = f"""
from pathlib import Path
from vinegrape_handler.handler import Handler

class FailsTheSecondTime(Handler):
    def initialize(self, context):
        Path({str(started)!r}).mkdir()
        super().initialize(context)
"""
    with serving(with_entry(small_archive, tmp_path, code), tmp_path / "log", startup_timeout_s=15) as live:
        (worker,) = workers(live.process)
        worker.kill()
        wait_until(lambda: live.operations("/readyz").text == "no worker runs\n")
        assert live.operations("/readyz").status_code == 503
        assert live.operations("/livez").status_code == 200
        assert live.metrics()[("vinegrape_workers_ready",)] == 0
        assert live.process.wait(15 + STOP_S) == 1
        assert last_line(live.log).startswith("vinegrape: No worker has run for 15 s (startup_timeout_s)")


def test_a_torchserve_that_hangs_is_noticed_and_ended(small_archive, tmp_path):
    with serving(small_archive, tmp_path / "log", startup_timeout_s=15) as live:
        frontend = java(live.process)
        frontend.suspend()
        wait_until(lambda: live.operations("/readyz").text == "TorchServe does not answer\n")
        assert live.operations("/livez").status_code == 503
        assert live.process.wait(15 + STOP_S) == 1
        assert last_line(live.log).startswith("vinegrape: TorchServe has not answered for 15 s (startup_timeout_s)")
        _, alive = psutil.wait_procs([frontend], timeout=STOP_S)
        assert not alive


def test_a_torchserve_that_hangs_is_not_waited_for_twice(small_archive, tmp_path):
    """It would be asked for what is in flight for long, and then not end by itself."""
    with serving(small_archive, tmp_path / "log", drain_timeout_s=1000) as live:
        java(live.process).suspend()
        live.process.send_signal(signal.SIGTERM)
        wait_until(lambda: live.operations("/readyz").text == "stopping\n")
        live.process.send_signal(signal.SIGTERM)
        assert live.process.wait(8) == 0  # it would be killed after 10


@pytest.fixture
def first_process(small_archive, tmp_path):
    """`vinegrape serve` as process 1 of its own process namespace, where the kernel drops signals nobody handles."""
    unshare, ports = program("unshare", "util-linux"), free_ports()
    if os.geteuid() != 0:
        pytest.skip("A process namespace needs root; run the tests as root")
    options = [f"--{name.replace('_', '-')}={port}" for name, port in ports.items()]
    arguments = [unshare, "--pid", "--fork", "--mount-proc", "--kill-child"]
    arguments += command("serve", "--archive", str(small_archive), "--workers=1", *options)
    with (tmp_path / "log").open("w") as log, subprocess.Popen(arguments, stdout=log, stderr=log) as process:
        try:
            wait_until(lambda: psutil.Process(process.pid).children())
            (first,) = psutil.Process(process.pid).children()
            assert re.search(r"^NSpid:.*\t1$", Path(f"/proc/{first.pid}/status").read_text(), re.MULTILINE)
            yield process, first, ports
        finally:
            process.kill()


def test_as_the_first_process_of_a_container(first_process, small_archive, tmp_path):
    process, first, ports = first_process
    _, (picture, *_) = read_self_check(small_archive)
    wait_for_banner(process, tmp_path / "log")
    processes = first.children(recursive=True)
    url = f"http://127.0.0.1:{ports['rest_port']}/predictions/vinegrape"
    assert httpx.post(url, content=picture, timeout=60).status_code == 200
    first.send_signal(signal.SIGTERM)
    assert process.wait(STOP_S) == 0
    _, alive = psutil.wait_procs(processes, timeout=STOP_S)
    assert not alive


def test_a_signal_before_anything_has_started(first_process, tmp_path):
    process, first, _ = first_process
    wait_until(lambda: handles(first, signal.SIGTERM))
    first.send_signal(signal.SIGTERM)
    assert process.wait(STOP_S) == 0
    assert "Ctrl-C" not in (tmp_path / "log").read_text()


def handles(process, number) -> bool:
    """Whether a process has a handler for a signal."""
    caught = re.search(r"^SigCgt:\t(\w+)$", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
    return bool(int(caught[1], 16) >> (number - 1) & 1)
