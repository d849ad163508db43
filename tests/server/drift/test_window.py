"""The window of recent answers: its length, its age, and what it keeps."""

import pytest

from tests.support.clock import Clock
from vinegrape_server.drift.window import Window


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def window(clock) -> Window:
    """A window of 100 answers and 1,000 s."""
    window = Window(100, 1000, clock)
    window.counts(total())
    return window


def total(old: float = 0, new: float = 0) -> dict[str, list[float]]:
    """Counters with two kinds of answers."""
    return {"confidence": [old, new], "label": [old]}


def test_the_window_contains_all_answers_until_it_is_full(window):
    assert window.counts(total(30, 40)) == {"confidence": [30, 40], "label": [30]}


def test_answers_before_the_first_reading_are_not_in_the_window():
    window = Window(100, 1000)
    assert window.counts(total(500)) == total(500)  # the counters began with 0, at the start of the server
    for new in range(0, 201, 5):
        counts = window.counts(total(500, new))
    assert counts["confidence"][0] == 0


def test_old_answers_leave_a_full_window(window):
    for old in range(0, 101, 5):
        window.counts(total(old))
    for new in range(0, 301, 5):
        counts = window.counts(total(100, new))
        assert 100 <= sum(counts["confidence"]) <= 105  # it is larger by up to one step
    assert counts["confidence"][0] == 0


def test_a_window_can_be_as_large_as_the_answers_between_two_readings(window):
    assert sum(window.counts(total(5000))["confidence"]) == 5000
    assert sum(window.counts(total(5000, 100))["confidence"]) == 100


def test_answers_leave_the_window_when_they_are_too_old(window, clock):
    assert sum(window.counts(total(3))["confidence"]) == 3
    clock.seconds = 900
    assert sum(window.counts(total(3, 2))["confidence"]) == 5
    clock.seconds = 1001
    assert sum(window.counts(total(3, 4))["confidence"]) <= 4
    clock.seconds = 5000
    assert sum(window.counts(total(3, 4))["confidence"]) == 0


def test_the_number_of_snapshots_is_bounded(window, clock):
    for answers in range(3000):
        clock.seconds += 1
        window.counts(total(answers))
    assert len(window._snapshots) < 50
