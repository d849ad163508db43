import io
import itertools
import json

import grpc
import pytest
from PIL import Image

from vinegrape_loadtests.client import HttpResponse
from vinegrape_loadtests.response_checks import ResponseChecker, read_grpc_error
from vinegrape_loadtests.sample_requests import SampleRequest, make_sample_requests

NAMES = ("png", "jpeg", "photo", "cut", "text", "instances")


@pytest.fixture(scope="module")
def requests() -> dict[str, SampleRequest]:
    return make_sample_requests()


def test_the_photo_is_like_a_phones(requests):
    photo = Image.open(io.BytesIO(requests["photo"].body))
    assert photo.format == "JPEG"
    assert photo.width * photo.height >= 12e6
    assert photo.getexif()[0x0112] == 6
    assert len(requests["photo"].body) > 2e6


def test_the_bytes_are_the_same_each_time(requests):
    assert tuple(requests) == NAMES
    assert make_sample_requests() == requests


@pytest.mark.parametrize("name", NAMES)
def test_a_real_server_passes_the_checks_over_rest_and_grpc(server, requests, name):
    request, checker = requests[name], ResponseChecker(tolerance=0)
    rest = server.post(request.body, headers={"content-type": request.content_type})
    checker.check(request, HttpResponse(rest.status_code, rest.content))
    with server.channel() as predict:
        try:
            response = HttpResponse(200, predict(request.body))
        except grpc.RpcError as error:
            response = read_grpc_error(error)
    checker.check(request, response)


def test_predictions_for_the_images_differ(server, requests):
    """Otherwise a response to another image would not be noticed."""
    valid = [request for name, request in requests.items() if request.expected == (name,)]
    predictions = [json.loads(server.post(request.body).content)["probabilities"] for request in valid]
    assert len(predictions) == 3
    for one, other in itertools.combinations(predictions, 2):
        assert max(abs(one[label] - other[label]) for label in one) > 0.05
