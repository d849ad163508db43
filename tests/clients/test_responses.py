from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from vinegrape_client.errors import Overloaded, Unavailable
from vinegrape_client.responses import read_error

OVERLOADED = b'{"error": {"code": 429, "type": "overloaded", "message": "Too many requests."}}'


def test_an_error_has_message_request_id_and_delay():
    error = read_error(429, {"retry-after": "3", "x-request-id": "r1"}, OVERLOADED)
    assert isinstance(error, Overloaded)
    assert (error.message, error.request_id, error.retry_after_s) == ("Too many requests.", "r1", 3)


def test_the_delay_may_be_a_date():
    later = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    assert 3500 < read_error(503, {"retry-after": later}, b"").retry_after_s <= 3600
    assert read_error(503, {"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, b"").retry_after_s == 0


@pytest.mark.parametrize("value", ["", "soon", "-1", "1.5"])
def test_an_invalid_delay_is_ignored(value):
    assert read_error(503, {"retry-after": value}, b"").retry_after_s is None


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b'{"code": 503, "type": "ServiceUnavailableException"}', b'{"error": "down"}', b"[]"]
)
def test_an_error_of_another_form_has_the_text_as_its_message(body):
    error = read_error(503, {}, body)
    assert isinstance(error, Unavailable)
    assert error.message == (body.decode() or "status 503")
