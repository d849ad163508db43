import math
import time

import pytest

from vinegrape_handler.contract import DEADLINE_HEADER
from vinegrape_handler.deadline import check_deadline, read_deadline
from vinegrape_handler.errors import DeadlineExceeded


def test_a_deadline_is_a_unix_time_in_milliseconds():
    assert read_deadline({DEADLINE_HEADER: "1800000000250"}) == 1_800_000_000.25


@pytest.mark.parametrize("value", ["", "soon", "12:30", "1e999", {"content-type": ""}, "9" * 10_000])
def test_a_malformed_deadline_is_ignored(value):
    assert read_deadline({DEADLINE_HEADER: value}) == math.inf
    assert read_deadline({}) == math.inf


def test_a_deadline_in_the_past_is_exceeded():
    for deadline in (time.time() + 3600, math.inf, math.nan):
        check_deadline(deadline)
    with pytest.raises(DeadlineExceeded):
        check_deadline(time.time() - 0.001)
