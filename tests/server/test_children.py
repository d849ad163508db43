"""A shell process stands in for the gateway."""

import subprocess

import pytest

from tests.support.server import wait_until
from vinegrape_handler.errors import SettingError
from vinegrape_server import children as module
from vinegrape_server.children import Child
from vinegrape_server.errors import ServeError


class Sleeper:
    """A child process that sleeps, or ends at once."""

    def __init__(self, command: str = "sleep 600") -> None:
        self._process = subprocess.Popen(["/bin/sh", "-c", f"exec {command}"])
        self.pid = self._process.pid

    def is_running(self) -> bool:
        return self._process.poll() is None

    def check(self) -> None:
        if not self.is_running():
            raise ServeError("The sleeper has ended.")

    def stop_gracefully(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def test_the_end_of_the_block_kills_the_process():
    with Child("gateway", Sleeper) as child:
        process = child.process
        assert process.is_running()
    assert not process.is_running()


def test_a_running_process_is_left_alone(capsys):
    with Child("gateway", Sleeper) as child:
        pid = child.process.pid
        child.keep_running()
        assert (child.process.pid, child.restarts) == (pid, 0)
    assert capsys.readouterr().err == ""


def test_an_ended_process_is_started_again_with_one_line(capsys):
    with Child("gateway", Sleeper) as child:
        first = child.process
        first.kill()
        wait_until(lambda: child.keep_running() or child.process is not first)
        assert child.process.is_running()
        assert child.restarts == 1
    assert capsys.readouterr().err == "vinegrape: The sleeper has ended. It is started again.\n"


class Reloader(Sleeper):
    """A process whose files may have changed."""

    def __init__(self) -> None:
        super().__init__()
        self.changed, self.reloads = False, 0

    def files_changed(self) -> bool:
        return self.changed

    def reload(self) -> bool:
        self.changed = False
        self.reloads += 1
        return True


def test_changed_files_are_read_again_while_the_process_runs():
    with Child("edge", Reloader) as child:
        child.keep_running()
        assert child.process.reloads == 0
        child.process.changed = True
        child.keep_running()
        child.keep_running()
        assert (child.process.reloads, child.restarts) == (1, 0)


class Closed(Sleeper):
    """A process that starts closed."""

    is_open = False

    def open(self) -> None:
        self.is_open = True


def test_a_process_is_closed_until_it_is_opened_and_its_replacement_opens_at_once():
    with Child("edge", Closed) as child:
        first = child.process
        assert not first.is_open
        child.open()
        assert first.is_open
        first.kill()
        wait_until(lambda: child.keep_running() or child.process is not first)
        assert child.process.is_open


def test_a_process_that_ends_before_it_is_opened_is_replaced_by_a_closed_one():
    with Child("edge", Closed) as child:
        first = child.process
        first.kill()
        wait_until(lambda: child.keep_running() or child.process is not first)
        assert not child.process.is_open


def test_a_process_that_always_ends_is_an_error(monkeypatch):
    monkeypatch.setattr(module, "_FIRST_WAIT_S", 0.0)
    with Child("edge", lambda: Sleeper("false")) as child:
        with pytest.raises(
            ServeError, match=r"^The sleeper has ended\. This was the start number 6 in a row that failed\.$"
        ):
            wait_until(child.keep_running)
        assert child.restarts == 5


def test_a_process_that_ends_now_and_then_is_no_error(monkeypatch):
    monkeypatch.setattr(module, "_FIRST_WAIT_S", 0.0)
    monkeypatch.setattr(module, "_STABLE_S", 0.0)
    with Child("edge", lambda: Sleeper("false")) as child:
        wait_until(lambda: child.keep_running() or child.restarts == 10)


def test_a_start_that_fails_is_tried_again(capsys, monkeypatch):
    monkeypatch.setattr(module, "_FIRST_WAIT_S", 0.0)
    starts = [Sleeper("false"), SettingError("tls_key does not exist"), Sleeper()]

    def start():
        made = starts.pop(0)
        if isinstance(made, Exception):
            raise made
        return made

    with Child("edge", start) as child:
        wait_until(lambda: child.keep_running() or not starts)
        assert child.process.is_running()
    assert "vinegrape: The edge does not start: tls_key does not exist\n" in capsys.readouterr().err
