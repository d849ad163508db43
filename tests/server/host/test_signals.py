import os
import signal
from collections.abc import Callable, Iterator

import pytest

from vinegrape_server.host.signals import stop_signals


@pytest.fixture(autouse=True)
def set_signal() -> Iterator[Callable[..., object]]:
    """Set the disposition of signals for this test. Under `nohup`, SIGHUP is ignored when pytest starts."""
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield signal.signal
    for number, handler in previous.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_requests_a_stop_and_a_later_one_an_immediate_stop(number, set_signal):
    set_signal(number, signal.SIG_DFL)
    with stop_signals(duplicate_s=0) as stop:
        assert not stop.requested.is_set()
        os.kill(os.getpid(), number)
        assert (stop.requested.is_set(), stop.immediate.is_set()) == (True, False)
        os.kill(os.getpid(), number)
        assert stop.immediate.is_set()
    os.kill(os.getpid(), number)  # a further signal does not end the process


def test_without_a_stop_the_signals_have_their_previous_meaning(set_signal):
    set_signal(signal.SIGTERM, signal.SIG_DFL)
    with stop_signals():
        pass
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGHUP])
def test_a_second_signal_soon_after_the_first_is_the_same_signal(second, set_signal):
    """As when systemd sends SIGHUP right after SIGTERM."""
    set_signal(second, signal.SIG_DFL)
    with stop_signals(duplicate_s=1e9) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), second)
        assert (stop.requested.is_set(), stop.immediate.is_set()) == (True, False)


def test_a_sighup_that_nohup_ignores_stays_ignored(set_signal):
    set_signal(signal.SIGHUP, signal.SIG_IGN)
    with stop_signals() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not stop.requested.is_set()


def test_an_ignored_sigint_is_handled(set_signal):
    """A shell script ignores SIGINT for a server that it starts with `&`. `kill -INT` must still stop the server."""
    set_signal(signal.SIGINT, signal.SIG_IGN)
    with stop_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested.is_set()
