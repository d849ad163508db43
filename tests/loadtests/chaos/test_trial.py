"""The verdict: what was seen, compared with the limits of a row."""

import time

import pytest

from vinegrape_loadtests.chaos.answers import Answer, KnownImage, judge
from vinegrape_loadtests.chaos.row import FAILED, PASSED, Limits, Row
from vinegrape_loadtests.chaos.trial import Trial, percentile_ms

KNOWN = KnownImage(b"image", {"Ak": 0.75, "Nazli": 0.25})


class Clients:
    """Good clients whose answers the test sets."""

    def __init__(self, *outcomes: str) -> None:
        now = time.monotonic()
        self.answers = [Answer("rest", now + i, 0.02, outcome, outcome) for i, outcome in enumerate(outcomes)]

    def since(self, start: float) -> list[Answer]:
        return [answer for answer in self.answers if answer.due >= start]


def trial(limits: Limits, *outcomes: str, edge: bool = True, **options) -> Trial:
    row = Row("a-fault", 0, lambda trial: None, "what is done", "what is claimed", limits, **options)
    tried = Trial(row, False, None, edge, (KNOWN,), {"rest": 1.0}, 1.0)
    tried.begin()
    tried.clients = Clients(*outcomes)
    return tried


@pytest.mark.parametrize(
    ("limits", "outcomes", "verdict"),
    [
        (Limits(), ["right"] * 3, PASSED),
        (Limits(), ["right", "lost"], FAILED),
        (Limits(lost=1), ["right", "lost"], PASSED),
        (Limits(lost=None), ["right", "lost", "lost"], PASSED),
        (Limits(), ["right", "refused"], FAILED),
        (Limits(refused=None), ["right", "refused"], PASSED),
        (Limits(lost=None, refused=None), ["right", "wrong"], FAILED),  # a wrong answer is never allowed
        (Limits(), [], FAILED),  # clients that got nothing prove nothing
        (Limits(p99_ms=10), ["right"], FAILED),
        (Limits(not_ready_s=5), ["right"], FAILED),  # nobody has reported the fault
    ],
)
def test_the_verdict_follows_the_limits(limits, outcomes, verdict):
    result = trial(limits, *outcomes).result()
    assert result.verdict == verdict
    assert bool(result.problems) == (verdict == FAILED)


def test_a_fault_can_allow_losses_and_counts_what_its_own_requests_got():
    tried = trial(Limits(lost=0), "right", "lost", "lost")
    tried.allow_lost(2)
    tried.expect("400", {"400"}, "form")
    result = tried.result()
    assert (result.verdict, result.lost) == (PASSED, 2)
    assert result.outcomes == {"form: 400": 1}
    tried.expect("200", {"400"}, "form")
    assert tried.result().problems == ["form: 200, not 400"]


def test_without_the_edge_other_limits_hold():
    options = {"limits_without_edge": Limits(lost=None)}
    assert trial(Limits(), "right", "lost", edge=True, **options).result().verdict == FAILED
    assert trial(Limits(), "right", "lost", edge=False, **options).result().verdict == PASSED


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (200, b'{"probabilities": {"Ak": 0.75, "Nazli": 0.25}}', "right"),
        (200, b'{"probabilities": {"Ak": 0.25, "Nazli": 0.75}}', "wrong"),
        (200, b'{"probabilities": {"Ak": 1.0}}', "wrong"),
        (200, b'{"error": {"code": 422}}', "wrong"),
        (200, b"<html>", "wrong"),
        (429, b"", "refused"),
        (503, b"", "lost"),
    ],
)
def test_each_response_is_judged(status, body, outcome):
    assert judge(KNOWN, status, body)[0] == outcome


def test_percentiles_are_in_milliseconds():
    assert percentile_ms([number / 1000 for number in range(100)], 0.99) == 99
    assert percentile_ms([], 0.99) is None
