"""Requests at the same time: the response to each one is the answer or the error for its own image."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from tests.support.images import encode
from tests.support.payloads import instances
from tests.support.tiny_archive import BLACK, BLUE, GREEN, RED, probabilities

BROKEN, TEXT = b"\x89PNG\r\n\x1a\n and no more", b"a text"
ERRORS = {BROKEN: 422, TEXT: 415}
COLOURS = (RED, GREEN, BLUE, BLACK, (255, 255, 0), (0, 255, 255))
TOLERANCE = 0.01  # JPEG changes each channel by up to 2 of 255; the images differ by more than 0.1


def send_rest(server):
    return lambda content: server.post(content, headers={"content-type": "image/png"}).json()


def send_grpc(server):
    return lambda content: json.loads(server.call(content))


def encode_colour(number, colour) -> bytes:
    """Encode an image of one colour: PNG if the number is odd, else JPEG."""
    return encode(Image.new("RGB", (8, 8), colour), "PNG" if number % 2 else "JPEG")


# Images of one colour, with their probabilities
ANSWERS = {encode_colour(number, colour): probabilities(colour) for number, colour in enumerate(COLOURS)}
FIRST, SECOND, THIRD, *_ = ANSWERS


def assert_answer(body, content):
    if content in ANSWERS:
        np.testing.assert_allclose(list(body["probabilities"].values()), ANSWERS[content], atol=TOLERANCE)
    else:
        assert body["error"]["code"] == ERRORS[content]


@pytest.mark.parametrize("send", [send_rest, send_grpc])
@pytest.mark.parametrize("place", [0, 1, 3])
def test_an_invalid_image_does_not_fail_its_neighbours(batching_server, send, place):
    contents = [FIRST, SECOND, THIRD]
    contents.insert(place, BROKEN)
    for body, content in zip(batching_server.at_once(send(batching_server), contents), contents, strict=True):
        assert_answer(body, content)


def test_invalid_images_over_rest_and_grpc_in_one_batch(batching_server):
    requests = [(send_rest, FIRST), (send_grpc, BROKEN), (send_rest, TEXT), (send_grpc, SECOND)]
    bodies = batching_server.at_once(lambda request: request[0](batching_server)(request[1]), requests)
    for body, (_, content) in zip(bodies, requests, strict=True):
        assert_answer(body, content)


def test_a_batch_of_broken_images(batching_server):
    for body in batching_server.at_once(send_rest(batching_server), [BROKEN] * 4):
        assert_answer(body, BROKEN)


def test_each_request_of_a_batch_has_its_own_status(batching_server):
    contents = [FIRST, BROKEN, TEXT, b'{"instances": []}']
    statuses = batching_server.at_once(lambda content: batching_server.post(content).status_code, contents)
    assert statuses == [200, 422, 415, 400]


def test_instances_and_single_images_share_a_batch(batching_server):
    contents = [instances(FIRST, BROKEN, SECOND), THIRD, instances(SECOND), TEXT]
    several, single, one, error = batching_server.at_once(send_rest(batching_server), contents)
    for body, content in zip(several["predictions"], (FIRST, BROKEN, SECOND), strict=True):
        assert_answer(body, content)
    assert_answer(single, THIRD)
    assert_answer(one["predictions"][0], SECOND)
    assert_answer(error, TEXT)


def test_four_requests_at_once_are_one_batch(batching_server):
    """Without this, the tests above could pass with batches of one request."""

    def sizes() -> tuple[float, float]:
        metrics = batching_server.metrics()
        return metrics[("vinegrape_batch_size_count",)], metrics[("vinegrape_batch_size_sum",)]

    # On a busy machine the fourth request can arrive after the batch delay of the first
    for _ in range(20):
        batches, images = sizes()
        batching_server.at_once(send_rest(batching_server), [FIRST, SECOND, THIRD, FIRST])
        new_batches, new_images = sizes()
        assert new_images == images + 4
        if new_batches == batches + 1:
            return
    pytest.fail("Four requests at once were never one batch.")


def test_a_single_request_gets_its_response_after_the_batch_delay(batching_server):
    assert_answer(send_rest(batching_server)(FIRST), FIRST)


@pytest.mark.live
@pytest.mark.xdist_group("tiny_server")
@pytest.mark.parametrize("name", ["tiny_server", "batching_server"])
def test_many_clients_at_once(name, request):
    """200 requests from 16 threads, valid and broken, PNG and JPEG, over REST and gRPC."""
    live = request.getfixturevalue(name)
    contents = [*ANSWERS, BROKEN, TEXT]
    rng = np.random.default_rng(0)
    requests = [(contents[rng.integers(len(contents))], (send_rest, send_grpc)[rng.integers(2)]) for _ in range(200)]
    with ThreadPoolExecutor(16) as pool:
        bodies = list(pool.map(lambda request: request[1](live)(request[0]), requests))
    for body, (content, _) in zip(bodies, requests, strict=True):
        assert_answer(body, content)
