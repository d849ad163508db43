import json

import pytest

from tests.support.stand_in import prediction
from vinegrape_loadtests.response_checks import Answers, WrongAnswer
from vinegrape_loadtests.sample_requests import Failure, Question

PNG = Question("png", b"", "image/png", ("png",))
CUT = Question("cut", b"", "image/png", (Failure(422, "broken_image"),))
THREE = Question("instances", b"", "application/json", ("png", *CUT.expected, "jpeg"), instances=True)
BROKEN = {"error": {"code": 422, "type": "broken_image", "message": "..."}}
OTHER = prediction(label="Nazli", probability=0.6, probabilities={"Ak": 0.4, "Nazli": 0.6})


def check(question, answer, status: int | None = 200, answers: Answers | None = None) -> None:
    (answers or Answers(0)).check(question, json.dumps(answer).encode(), status)


@pytest.mark.parametrize("status", [200, None])
def test_a_prediction_is_right(status):
    check(PNG, prediction(), status)


@pytest.mark.parametrize("status", [422, None])
def test_the_error_of_a_broken_image_is_right(status):
    check(CUT, BROKEN, status)


@pytest.mark.parametrize(
    ("answer", "status", "message"),
    [
        (prediction(), 201, "status 201, not 200"),
        ({"error": {"type": "inference_failed"}}, 503, "status 503, not 200: inference_failed"),
        (BROKEN, None, "no prediction: broken_image"),
        ([], 200, "no JSON object, with status 200"),
        ({}, 200, "no prediction"),
        (prediction(probabilities={}), 200, "no prediction"),
        (prediction(probabilities=None), 200, "no prediction"),
        (prediction(label=None), 200, "no prediction"),
        (prediction(model={}), 200, "no prediction"),
        (prediction(label="Nazli"), 200, "not the most probable class"),
        (prediction(probability=0.6), 200, "has another probability"),
        (prediction(probabilities={"Ak": 0.7, "Nazli": 0.4}), 200, "do not sum to 1"),
        (prediction(probability=float("nan"), probabilities={"Ak": float("nan")}), 200, "do not sum to 1"),
    ],
)
def test_a_wrong_prediction(answer, status, message):
    with pytest.raises(WrongAnswer, match=message):
        check(PNG, answer, status)


@pytest.mark.parametrize(
    ("answer", "status", "message"),
    [
        (BROKEN, 200, "status 200, not 422"),
        (prediction(), None, "no error, broken_image expected"),
        ({"error": {"code": 422, "type": "no_image"}}, 422, "error no_image, not broken_image"),
        ({"error": {"code": 415, "type": "broken_image"}}, 422, "error code 415, not 422"),
    ],
)
def test_a_wrong_error(answer, status, message):
    with pytest.raises(WrongAnswer, match=message):
        check(CUT, answer, status)


def test_what_is_no_json():
    with pytest.raises(WrongAnswer, match="no JSON object, with status 502"):
        Answers(0).check(PNG, b"<html>", 502)


def test_the_same_picture_gets_the_same_answer():
    answers = Answers(0)
    check(PNG, prediction(), answers=answers)
    check(PNG, prediction(), answers=answers)
    with pytest.raises(WrongAnswer, match="another answer than the first to png"):
        check(PNG, OTHER, answers=answers)


def test_a_second_version_of_the_model_answers_only_where_it_may():
    other = OTHER | {"model": {"version": "2"}}
    for versions in (1, 2):
        answers = Answers(0, versions)
        check(PNG, prediction(), answers=answers)
        if versions == 2:
            check(PNG, other, answers=answers)
            continue
        with pytest.raises(WrongAnswer, match="another version of the model"):
            check(PNG, other, answers=answers)


def test_two_pictures_do_not_get_one_answer():
    """Of a server that looks at none of them."""
    answers = Answers(0)
    check(PNG, prediction(), answers=answers)
    with pytest.raises(WrongAnswer, match="the same answer to jpeg as to png"):
        check(Question("jpeg", b"", "image/jpeg", ("jpeg",)), prediction(), answers=answers)


def test_a_tolerance_is_tolerated():
    near = prediction(probability=0.705, probabilities={"Ak": 0.705, "Nazli": 0.295})
    answers = Answers(0.01)
    check(PNG, prediction(), answers=answers)
    check(PNG, near, answers=answers)
    with pytest.raises(WrongAnswer, match="another answer"):
        check(PNG, OTHER, answers=answers)


def test_instances_are_answered_in_their_order():
    answers = Answers(0)
    check(THREE, {"predictions": [prediction(), BROKEN, OTHER]}, answers=answers)
    check(PNG, prediction(), answers=answers)
    with pytest.raises(WrongAnswer, match="instance 0: the same answer to png as to jpeg"):
        check(THREE, {"predictions": [OTHER, BROKEN, prediction()]}, answers=answers)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"predictions": [prediction()]}, "1 predictions to 3 instances"),
        ({"predictions": None}, 'no list "predictions"'),
        ({"predictions": [prediction(), prediction(), OTHER]}, "instance 1: no error, broken_image expected"),
        ({"predictions": [prediction(), BROKEN, None]}, "instance 2: no prediction"),
    ],
)
def test_wrong_predictions(answer, message):
    with pytest.raises(WrongAnswer, match=message):
        check(THREE, answer)
