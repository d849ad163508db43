import contextlib
import random

import pytest

from tests.support import stand_in
from vinegrape_loadtests.bench import alternating


def test_both_addresses_get_the_same_number_of_requests_and_a_result_of_their_own():
    with stand_in.stand_in(stand_in.late(0.05)) as slow, stand_in.stand_in(stand_in.correct) as fast:
        slow_result, fast_result = alternating.run([slow.url, fast.url], b"image", seconds=0.3, seed=0)
    assert slow_result.requests == fast_result.requests == slow.requests == fast.requests > 0
    assert slow_result.latency_ms["50"] >= 50
    assert slow_result.latency_ms["50"] > fast_result.latency_ms["50"]
    assert slow_result.failed == fast_result.failed == 0


def test_the_order_changes_between_turns():
    """With a fixed order, TorchServe's two workers would each get the requests of one address."""
    arrived = []

    def noting(name):
        def respond():
            arrived.append(name)
            return stand_in.correct()

        return respond

    with contextlib.ExitStack() as stack:
        urls = [stack.enter_context(stand_in.stand_in(noting(name))).url for name in "ab"]
        alternating.run(urls, b"image", seconds=0.2, seed=1)
    turns = ["".join(turn) for turn in zip(arrived[::2], arrived[1::2], strict=True)]
    order = random.Random(1)
    assert turns == ["".join(order.sample("ab", 2)) for _ in turns]


def test_an_error_status_is_a_failure_and_has_no_latency():
    with stand_in.stand_in(stand_in.failing) as broken, stand_in.stand_in(stand_in.correct) as server:
        broken_result, result = alternating.run([broken.url, server.url], b"image", seconds=0.05, seed=0)
    assert (broken_result.requests, broken_result.latency_ms) == (0, {})
    assert broken_result.failed == result.requests > 0


def test_a_closed_port_is_an_error():
    with pytest.raises(ConnectionRefusedError):
        alternating.run(["http://127.0.0.1:1/"], b"image", seconds=0.05, seed=0)
