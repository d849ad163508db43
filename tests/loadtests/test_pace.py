import itertools

import gevent
import pytest

from vinegrape_handler.errors import SettingError
from vinegrape_loadtests.pace import ClosedLoop, OpenLoop, RunEnded


def test_a_closed_loop_never_waits_and_ends():
    loop = ClosedLoop()
    loop.start()
    assert loop.next() <= loop.next()
    assert loop.end() == []
    with pytest.raises(RunEnded):
        loop.next()


def test_a_pause_of_a_closed_loop_ends_with_the_run():
    loop = ClosedLoop()
    loop.start()
    paused = gevent.spawn(loop.pause, 600)
    gevent.sleep(0)
    assert not paused.ready()
    loop.end()
    paused.join(30)
    assert paused.ready()


def test_an_open_loop_never_pauses():
    assert gevent.with_timeout(30, OpenLoop(rate=1).pause, 600, timeout_value="paused") is None


def test_due_times_are_evenly_spaced():
    loop = OpenLoop(rate=100)
    loop.start()
    due = [loop.next() for _ in range(5)]
    assert [late - early for early, late in itertools.pairwise(due)] == pytest.approx([0.01] * 4)


def test_processes_share_the_rate():
    loops = [OpenLoop(100, process, 2) for process in range(2)]
    starts = []
    for loop in loops:
        loop.start()
        starts.append([loop.next() for _ in range(3)])
    for due in starts:
        assert [late - early for early, late in itertools.pairwise(due)] == pytest.approx([0.02] * 2)


def test_due_requests_that_no_user_took_are_returned_as_unsent():
    loop = OpenLoop(rate=1000)
    loop.start()
    first = loop.next()
    while loop.waiting < 3:
        gevent.sleep(0)
    unsent = loop.end()
    assert len(unsent) >= 3
    assert unsent[0] == pytest.approx(first + 0.001)
    assert loop.end() == []


def test_a_user_that_waits_gets_run_ended_at_the_end():
    loop = OpenLoop(rate=0.001)
    loop.start()
    loop.next()
    waiting = gevent.spawn(loop.next)
    gevent.sleep(0)
    assert loop.end() == []
    with pytest.raises(RunEnded):
        waiting.get()


def test_more_processes_than_expected_are_refused():
    with pytest.raises(SettingError, match=r"process 3 of 2.*--expect-workers"):
        OpenLoop(10, process=2, processes=2)
