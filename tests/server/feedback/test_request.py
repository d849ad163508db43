"""The JSON of feedback: what is read, and what is rejected with which message."""

import json

import pytest

from vinegrape_handler.errors import BadRequest, RequestError, TooLarge
from vinegrape_server.feedback.request import MAX_ITEMS, Feedback, read_feedback

CLASSES = ("Ak", "Nazli")
GOOD = {"label": "Ak", "probability": 0.9, "truth": "Nazli"}


def read(body: object) -> list[Feedback]:
    return read_feedback(json.dumps(body).encode(), "v2", CLASSES)


def test_one_piece_of_feedback_and_a_list():
    feedback = Feedback("v2", "Ak", 0.9, True, "Nazli")
    assert read(GOOD) == [feedback]
    assert read([GOOD, GOOD]) == [feedback, feedback]


def test_an_image_without_a_label_was_not_known():
    assert read({**GOOD, "label": None, "truth": "other"}) == [Feedback("v2", None, 0.9, False, "other")]
    assert read({**GOOD, "known": False}) == [Feedback("v2", "Ak", 0.9, False, "Nazli")]


def test_another_version_may_have_other_varieties():
    older = {"label": "Dimnit", "probability": 1, "truth": "Dimnit", "version": "v1"}
    assert read(older) == [Feedback("v1", "Dimnit", 1.0, True, "Dimnit")]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (7, "It must be an object such as"),
        ([], "The list of feedback is empty"),
        ([GOOD, []], "Feedback 1: It must be an object"),
        ({"label": "Ak", "truth": "Ak"}, "The key 'probability' is missing"),
        ({**GOOD, "image": "..."}, "The key 'image' is not one of label, probability, truth, known, version"),
        ({**GOOD, "label": "ak"}, "label is 'ak'; it must be one of Ak, Nazli"),
        ({**GOOD, "label": "other"}, "label is 'other'; it must be one of Ak, Nazli"),
        ({**GOOD, "label": 3}, "label is 3; it must be text of 1 to 64 characters"),
        ({**GOOD, "truth": None}, "truth is None; it must be text"),
        ({**GOOD, "truth": "Dimnit"}, "truth is 'Dimnit'; it must be one of Ak, Nazli, other"),
        ({**GOOD, "probability": 1.01}, "probability is 1.01; it must be a number from 0 to 1"),
        ({**GOOD, "probability": float("nan")}, "probability is nan"),
        ({**GOOD, "probability": True}, "probability is True"),
        ({**GOOD, "probability": "0.5"}, "probability is '0.5'"),
        ({**GOOD, "known": 1}, "known is 1; it must be true or false"),
        ({**GOOD, "label": None, "known": True}, "known is true, but label is null"),
        ({**GOOD, "version": "a\nb"}, "version is 'a\\nb'; it must be text"),
        ({**GOOD, "version": "v" * 65}, "version is 'v"),
        ([GOOD, {**GOOD, "probability": 2}], "Feedback 1: probability is 2"),
    ],
)
def test_invalid_feedback_is_rejected_with_the_reason(body, message):
    with pytest.raises(BadRequest) as error:
        read(body)
    assert message in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"label": "Ak", "label": "Ak"}', b"[" * 100_000])
def test_invalid_json_is_rejected(body):
    with pytest.raises(BadRequest, match="JSON"):
        read_feedback(body, "v2", CLASSES)


def test_a_list_that_is_too_long_is_rejected():
    assert len(read([GOOD] * MAX_ITEMS)) == MAX_ITEMS
    with pytest.raises((TooLarge, BadRequest)) as error:
        read([GOOD] * (MAX_ITEMS + 1))
    assert isinstance(error.value, RequestError)
    assert str(MAX_ITEMS) in str(error.value)
