import json

import pytest

from vinegrape_handler.contract import SelfCheckAnswer


def test_a_self_check_answer_is_read_back_from_its_json():
    answer = SelfCheckAnswer(worker=4711, version="0123456789ab")
    text = json.dumps(answer.to_body("vinegrape"))
    assert text == '{"worker": 4711, "model": {"name": "vinegrape", "version": "0123456789ab"}}'
    assert SelfCheckAnswer.from_body(json.loads(text)) == answer


@pytest.mark.parametrize(
    "body",
    [
        {"code": 503, "type": "InternalServerException", "message": "Prediction failed"},  # TorchServe's own error
        {"error": {"code": 503, "type": "inference_failed", "message": "The self-check image 0.png failed."}},
        {"label": "Ak", "model": {"name": "vinegrape", "version": "1"}},
        {"worker": 1},
        {"worker": 1, "model": {"name": "vinegrape"}},
        {"worker": 1, "model": "vinegrape"},
        {"worker": None, "model": {"version": "1"}},
        {"worker": "first", "model": {"version": "1"}},
        {},
        [],
        "text",
        7,
        None,
    ],
)
def test_another_body_is_not_a_self_check_answer(body):
    with pytest.raises((LookupError, TypeError, ValueError)):
        SelfCheckAnswer.from_body(body)
