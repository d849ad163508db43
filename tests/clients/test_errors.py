import pickle

import pytest

from vinegrape_client import errors
from vinegrape_client.errors import UnexpectedResponse, VinegrapeError, make_error
from vinegrape_handler.errors import RequestError


def leaves(error: type) -> list[type]:
    return [leaf for child in error.__subclasses__() for leaf in leaves(child)] or [error]


SERVER = leaves(RequestError)


@pytest.mark.parametrize("error", SERVER, ids=lambda error: error.__name__)
def test_each_error_of_the_server_is_an_exception_of_the_same_name(error):
    ours = getattr(errors, error.__name__)
    assert (ours.code, ours.type) == (error.status, error.type)
    assert ours.can_retry == (error.status in (429, 503))
    assert isinstance(make_error(error.status, error.type, "the reason"), ours)


def test_there_are_no_others_with_a_status():
    assert {error.__name__ for error in VinegrapeError.__subclasses__() if error.code} == {e.__name__ for e in SERVER}


@pytest.mark.parametrize(
    ("code", "name"), [(404, "NotFound"), (413, "TooLarge"), (429, "Overloaded"), (503, "Unavailable")]
)
def test_without_a_type_the_status_decides(code, name):
    assert type(make_error(code, "", "of a proxy")).__name__ == name


def test_an_unknown_error_keeps_its_code_and_type():
    error = make_error(418, "teapot", "The server is a teapot.", request_id="r1")
    assert isinstance(error, UnexpectedResponse)
    assert error.to_json() == {"error": {"code": 418, "type": "teapot", "message": "The server is a teapot."}}
    assert (str(error), error.request_id, error.can_retry) == ("The server is a teapot.", "r1", False)
    assert UnexpectedResponse("another").code == 0  # only the one error has the code


def test_an_error_can_be_sent_to_another_process():
    error = pickle.loads(pickle.dumps(make_error(429, "overloaded", "too many", retry_after_s=2)))
    assert (type(error), error.code, error.message, error.retry_after_s) == (errors.Overloaded, 429, "too many", 2)
