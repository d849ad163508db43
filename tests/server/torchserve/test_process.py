"""A shell script stands in for TorchServe."""

import os
import signal

import pytest

from tests.support.server import wait_until
from vinegrape_handler.contract import START_FAILED
from vinegrape_server.errors import ServeError
from vinegrape_server.host.processes import is_running
from vinegrape_server.torchserve.process import TorchServeProcess


def start(script: str, folder) -> TorchServeProcess:
    return TorchServeProcess(["/bin/sh", "-c", script], {"PATH": os.environ["PATH"], "GREETING": "hello"}, folder)


def wait_for_file(path) -> str:
    wait_until(lambda: path.exists() and path.read_text().endswith("\n"))
    return path.read_text().strip()


def test_a_running_process_passes_the_check(tmp_path):
    with start("sleep 600", tmp_path) as process:
        assert process.is_running()
        process.check()


def test_it_runs_in_its_folder_with_only_the_given_environment(tmp_path):
    with start("echo $GREETING$HOME > file; sleep 600", tmp_path):
        assert wait_for_file(tmp_path / "file") == "hello"


def test_leaving_the_block_kills_it_and_its_children(tmp_path):
    with start("sleep 600 & echo $! > child; trap '' TERM; wait", tmp_path) as process:
        child = int(wait_for_file(tmp_path / "child"))
        assert is_running(child)
    assert not process.is_running()
    wait_until(lambda: not is_running(child))


def test_an_exit_is_reported_with_its_code_after_the_log(tmp_path, capsys):
    with start("echo out; echo err >&2; exit 3", tmp_path) as process:
        wait_until(lambda: not process.is_running())
        with pytest.raises(ServeError, match=r"TorchServe ended with exit code 3\. See the log above\."):
            process.check()
    assert capsys.readouterr().err == "out\nerr\n"


def test_a_kill_is_reported_with_its_signal(tmp_path):
    with start("exec sleep 600", tmp_path) as process:
        os.kill(process.pid, signal.SIGKILL)
        wait_until(lambda: not process.is_running())
        with pytest.raises(ServeError, match="TorchServe was killed by SIGKILL"):
            process.check()


def test_a_worker_that_cannot_start_is_reported_without_the_log(tmp_path, capsys):
    with start(f"echo before; echo '{START_FAILED}no weights'; sleep 600", tmp_path) as process:
        wait_until(lambda: process.log.failure)
        with pytest.raises(ServeError, match=r"^A worker cannot start: no weights$"):
            process.check()
    assert capsys.readouterr().err == ""
