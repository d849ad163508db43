import queue

import pytest

from tests.support.server import wait_until
from vinegrape_handler.contract import START_FAILED
from vinegrape_server.torchserve.log import TorchServeLog


class Lines:
    """Lines that arrive while the test runs; None ends them."""

    def __init__(self) -> None:
        self._queue: queue.Queue[str | None] = queue.Queue()

    def __iter__(self):
        return iter(self._queue.get, None)

    def add(self, *lines: str | None) -> None:
        for line in lines:
            self._queue.put(line)


@pytest.fixture
def lines():
    lines = Lines()
    yield lines
    lines.add(None)


def test_lines_are_held_back_until_release(lines, capsys):
    log = TorchServeLog(lines)
    lines.add("first\n", "second\n", None)
    log.wait_for_end()
    assert capsys.readouterr().err == ""
    log.release()
    assert capsys.readouterr().err == "first\nsecond\n"


def test_lines_after_release_are_printed_at_once(lines, capsys):
    log = TorchServeLog(lines)
    log.release()
    printed = []
    lines.add("first\n")
    wait_until(lambda: printed.append(capsys.readouterr().err) or "".join(printed) == "first\n")


def test_the_first_failed_start_is_the_failure_and_is_not_printed(lines, capsys):
    log = TorchServeLog(lines)
    lines.add(f"2026-01-01 WARN - {START_FAILED}no weights\n", f"{START_FAILED}too late\n", None)
    log.wait_for_end()
    assert log.failure == "no weights"
    log.release()
    assert capsys.readouterr().err == ""


def test_a_failed_start_after_release_is_printed(lines, capsys):
    log = TorchServeLog(lines)
    log.release()
    lines.add(f"{START_FAILED}no weights\n", None)
    log.wait_for_end()
    assert log.failure == ""
    assert capsys.readouterr().err == f"{START_FAILED}no weights\n"


def test_lines_of_every_start_are_dropped(lines, capsys):
    log = TorchServeLog(lines)
    lines.add("WARNING: sun.reflect\n", "nvidia-smi not available\n", "Model server started.\n", "kept\n", None)
    log.wait_for_end()
    log.release()
    assert capsys.readouterr().err == "kept\n"
