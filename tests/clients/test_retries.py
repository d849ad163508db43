import pytest

from vinegrape_client import Retries
from vinegrape_client.errors import BrokenImage, DeadlineExceeded, Overloaded
from vinegrape_client.retries import Attempts


@pytest.mark.parametrize(("failures", "longest"), [(1, 1), (2, 2), (3, 4), (4, 8), (5, 10), (100_000, 10)])
def test_the_backoff_doubles_up_to_a_limit_and_varies(failures, longest):
    retries = Retries(first_backoff_s=1, max_backoff_s=10)
    delays = [retries.delay_s(failures) for _ in range(200)]
    assert longest / 2 <= min(delays) < max(delays) <= longest
    assert longest / 2 + 60 <= retries.delay_s(failures, retry_after_s=60) <= longest + 60


@pytest.mark.parametrize(
    "values", [{"attempts": 0}, {"first_backoff_s": -1}, {"first_backoff_s": 2, "max_backoff_s": 1}]
)
def test_values_are_checked(values):
    with pytest.raises(ValueError, match="must be"):
        Retries(**values)


def test_the_attempts_are_counted():
    attempts = Attempts(Retries(attempts=3), timeout_s=60)
    refusal = Overloaded("too many")
    assert attempts.delay_s(refusal) < attempts.delay_s(refusal)
    with pytest.raises(Overloaded):
        attempts.delay_s(refusal)


def test_what_cannot_succeed_is_raised():
    with pytest.raises(BrokenImage):
        Attempts(Retries(), timeout_s=60).delay_s(BrokenImage("broken"))


def test_there_is_no_attempt_after_the_deadline():
    with pytest.raises(DeadlineExceeded):
        Attempts(Retries(), timeout_s=1e-9).remaining_s()
