import os
import signal

import pytest

from vinegrape_server.host.signals import stop_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_asks_to_stop_and_a_second_one_to_stop_now(number):
    before = signal.getsignal(number)
    with stop_signals() as stop:
        assert not stop.asked.is_set()
        os.kill(os.getpid(), number)
        assert (stop.asked.is_set(), stop.now.is_set()) == (True, False)
        os.kill(os.getpid(), number)
        assert stop.now.is_set()
    assert signal.getsignal(number) is before


def test_nohup_is_heard():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.asked.is_set()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_shell_that_starts_it_in_the_background_does_not_make_it_deaf():
    """A script's `&` has SIGINT ignored; `kill -INT` still stops."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_signals() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.asked.is_set()
    finally:
        signal.signal(signal.SIGINT, before)
