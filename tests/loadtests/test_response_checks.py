import json

import pytest

from tests.support.stand_in import prediction
from vinegrape_loadtests.response_checks import ResponseChecker, WrongResponse
from vinegrape_loadtests.sample_requests import ExpectedError, SampleRequest

PNG = SampleRequest("png", b"", "image/png", ("png",))
CUT = SampleRequest("cut", b"", "image/png", (ExpectedError(422, "broken_image"),))
THREE = SampleRequest("instances", b"", "application/json", ("png", *CUT.expected, "jpeg"), instances=True)
BROKEN = {"error": {"code": 422, "type": "broken_image", "message": "..."}}
OTHER = prediction(label="Nazli", probability=0.6, probabilities={"Ak": 0.4, "Nazli": 0.6})


def check(request, body, status: int | None = 200, checker: ResponseChecker | None = None) -> None:
    (checker or ResponseChecker(0)).check(request, json.dumps(body).encode(), status)


@pytest.mark.parametrize("status", [200, None])
def test_a_correct_prediction_passes(status):
    check(PNG, prediction(), status)


@pytest.mark.parametrize("status", [422, None])
def test_the_expected_error_of_a_broken_image_passes(status):
    check(CUT, BROKEN, status)


@pytest.mark.parametrize(
    ("body", "status", "message"),
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
def test_a_wrong_prediction_is_reported(body, status, message):
    with pytest.raises(WrongResponse, match=message):
        check(PNG, body, status)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (BROKEN, 200, "status 200, not 422"),
        (prediction(), None, "no error, broken_image expected"),
        ({"error": {"code": 422, "type": "no_image"}}, 422, "error no_image, not broken_image"),
        ({"error": {"code": 415, "type": "broken_image"}}, 422, "error code 415, not 422"),
    ],
)
def test_a_wrong_error_is_reported(body, status, message):
    with pytest.raises(WrongResponse, match=message):
        check(CUT, body, status)


def test_a_body_that_is_not_json_is_reported():
    with pytest.raises(WrongResponse, match="no JSON object, with status 502"):
        ResponseChecker(0).check(PNG, b"<html>", 502)


def test_the_same_image_must_get_the_same_prediction():
    checker = ResponseChecker(0)
    check(PNG, prediction(), checker=checker)
    check(PNG, prediction(), checker=checker)
    with pytest.raises(WrongResponse, match="differs from the first response to png"):
        check(PNG, OTHER, checker=checker)


def test_a_second_version_of_the_model_is_allowed_only_if_configured():
    other = OTHER | {"model": {"version": "2"}}
    for versions in (1, 2):
        checker = ResponseChecker(0, versions)
        check(PNG, prediction(), checker=checker)
        if versions == 2:
            check(PNG, other, checker=checker)
            continue
        with pytest.raises(WrongResponse, match="another version of the model"):
            check(PNG, other, checker=checker)


def test_two_images_must_not_get_the_same_prediction():
    """A server that ignores the image would do that."""
    checker = ResponseChecker(0)
    check(PNG, prediction(), checker=checker)
    with pytest.raises(WrongResponse, match="the same response to jpeg as to png"):
        check(SampleRequest("jpeg", b"", "image/jpeg", ("jpeg",)), prediction(), checker=checker)


def test_differences_within_the_tolerance_pass():
    near = prediction(probability=0.705, probabilities={"Ak": 0.705, "Nazli": 0.295})
    checker = ResponseChecker(0.01)
    check(PNG, prediction(), checker=checker)
    check(PNG, near, checker=checker)
    with pytest.raises(WrongResponse, match="differs from the first"):
        check(PNG, OTHER, checker=checker)


def test_instances_must_be_in_the_order_of_the_request():
    checker = ResponseChecker(0)
    check(THREE, {"predictions": [prediction(), BROKEN, OTHER]}, checker=checker)
    check(PNG, prediction(), checker=checker)
    with pytest.raises(WrongResponse, match="instance 0: the same response to png as to jpeg"):
        check(THREE, {"predictions": [OTHER, BROKEN, prediction()]}, checker=checker)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"predictions": [prediction()]}, "1 predictions for 3 instances"),
        ({"predictions": None}, 'no list "predictions"'),
        ({"predictions": [prediction(), prediction(), OTHER]}, "instance 1: no error, broken_image expected"),
        ({"predictions": [prediction(), BROKEN, None]}, "instance 2: no prediction"),
    ],
)
def test_wrong_predictions_are_reported(body, message):
    with pytest.raises(WrongResponse, match=message):
        check(THREE, body)
