import json
from types import SimpleNamespace

import pytest

from tests.support.stand_in import prediction
from vinegrape_loadtests.client import HttpResponse
from vinegrape_loadtests.response_checks import RequestRefused, ResponseChecker, WrongResponse, read_grpc_error
from vinegrape_loadtests.sample_requests import ExpectedError, SampleRequest

PNG = SampleRequest("png", b"", "image/png", ("png",))
CUT = SampleRequest("cut", b"", "image/png", (ExpectedError(422, "broken_image"),))
THREE = SampleRequest("instances", b"", "application/json", ("png", *CUT.expected, "jpeg"), instances=True)
BROKEN = {"error": {"code": 422, "type": "broken_image", "message": "..."}}
OTHER = prediction(label="Nazli", probability=0.6, probabilities={"Ak": 0.4, "Nazli": 0.6})


OVERLOADED = {"error": {"code": 429, "type": "overloaded", "message": "..."}}


class FailedCall:
    """The used part of gRPC's exception."""

    def __init__(self, status: str, details: str, retry_after: str = ""):
        self._status, self._details, self._retry_after = status, details, retry_after

    def code(self):
        return SimpleNamespace(name=self._status)

    def details(self):
        return self._details

    def trailing_metadata(self):
        return (("retry-after", self._retry_after),) if self._retry_after else None


def check(request, body, status: int = 200, checker: ResponseChecker | None = None, retry_after: str = "") -> None:
    (checker or ResponseChecker(0)).check(request, HttpResponse(status, json.dumps(body).encode(), retry_after))


def test_a_correct_prediction_passes():
    check(PNG, prediction())


def test_only_an_image_that_the_model_does_not_know_may_have_no_label():
    check(PNG, prediction(label=None, known=False, ood_score=0.5))
    for abstention in ({"known": True, "ood_score": 0.5}, {}):
        with pytest.raises(WrongResponse, match="no prediction"):
            check(PNG, prediction(label=None, **abstention))


def test_the_expected_error_of_a_broken_image_passes():
    check(CUT, BROKEN, 422)


@pytest.mark.parametrize("request_", [PNG, CUT, THREE])
@pytest.mark.parametrize("type_", ["overloaded", "rate_limited"])
def test_a_request_can_be_refused_with_the_time_of_the_next_try(request_, type_):
    body = {"error": OVERLOADED["error"] | {"type": type_}}
    with pytest.raises(RequestRefused) as raised:
        check(request_, body, 429, retry_after="7")
    assert raised.value.retry_after_s == 7


@pytest.mark.parametrize(
    ("body", "retry_after", "message"),
    [
        (OVERLOADED, "", "429 with the Retry-After ''"),
        (OVERLOADED, "0", "429 with the Retry-After '0'"),
        (OVERLOADED, "soon", "429 with the Retry-After 'soon'"),
        ({"error": {"code": 503, "type": "overloaded"}}, "1", "error code 503, not 429"),
        (BROKEN, "1", "status 429: broken_image"),
        ({}, "1", "status 429"),
    ],
)
def test_an_incomplete_refusal_is_a_wrong_response(body, retry_after, message):
    with pytest.raises(WrongResponse, match=message):
        check(PNG, body, 429, retry_after=retry_after)


def test_an_overloaded_server_that_says_503_has_failed():
    with pytest.raises(WrongResponse, match="status 503, not 200: overloaded"):
        check(PNG, {"error": {"code": 503, "type": "overloaded"}}, 503, retry_after="1")


@pytest.mark.parametrize(
    ("grpc_status", "error"),
    [
        ("INVALID_ARGUMENT", BROKEN),
        ("RESOURCE_EXHAUSTED", OVERLOADED),
        ("UNAVAILABLE", {"error": {"code": 503, "type": "unavailable"}}),
        ("DEADLINE_EXCEEDED", {"error": {"code": 504, "type": "deadline_exceeded"}}),
    ],
)
def test_a_failed_grpc_call_is_read_from_its_details(grpc_status, error):
    response = read_grpc_error(FailedCall(grpc_status, json.dumps(error), "3"))
    assert (response.status, json.loads(response.body), response.retry_after) == (error["error"]["code"], error, "3")


@pytest.mark.parametrize(
    ("grpc_status", "details", "message"),
    [
        ("UNAVAILABLE", "failed to connect", "gRPC UNAVAILABLE without an error of the server"),
        ("INVALID_ARGUMENT", "[]", "gRPC INVALID_ARGUMENT without an error of the server"),
        ("INTERNAL", json.dumps(BROKEN), "gRPC INTERNAL with the error code 422, not INVALID_ARGUMENT"),
        ("UNKNOWN", '{"error": {"code": 200}}', "gRPC UNKNOWN with the error code 200, not None"),
    ],
)
def test_a_grpc_status_that_contradicts_its_details_is_a_wrong_response(grpc_status, details, message):
    with pytest.raises(WrongResponse, match=message):
        read_grpc_error(FailedCall(grpc_status, details))


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (prediction(), 201, "status 201, not 200"),
        ({"error": {"type": "inference_failed"}}, 503, "status 503, not 200: inference_failed"),
        (BROKEN, 200, "no prediction: broken_image"),
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
        (prediction(), 422, "no error, broken_image expected"),
        ({"error": {"code": 422, "type": "no_image"}}, 422, "error no_image, not broken_image"),
        ({"error": {"code": 415, "type": "broken_image"}}, 422, "error code 415, not 422"),
    ],
)
def test_a_wrong_error_is_reported(body, status, message):
    with pytest.raises(WrongResponse, match=message):
        check(CUT, body, status)


def test_a_body_that_is_not_json_is_reported():
    with pytest.raises(WrongResponse, match="no JSON object, with status 502"):
        ResponseChecker(0).check(PNG, HttpResponse(502, b"<html>"))


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
