"""Several requests at a time: each gets the answer, or the error, of its own picture."""

import base64
import itertools
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from tests.support.images import encode
from vinegrape_training.data import drawn_leaves

BROKEN, FOREIGN = b"\x89PNG\r\n\x1a\n and no more", b"a text"
TOLERANCE = 2e-3  # int8 in batches of another size


def ask_rest(server):
    return lambda content: server.post(content, headers={"content-type": "image/png"}).json()


def ask_grpc(server):
    return lambda content: json.loads(server.call(content))


def instances(*pictures) -> bytes:
    return json.dumps({"instances": [{"b64": base64.b64encode(each).decode()} for each in pictures]}).encode()


def draw_blends() -> list[Image.Image]:
    """Drawn leaves of every kind, and mixtures of two, whose answers lie between."""
    leaves = []
    for number, kind in enumerate(drawn_leaves.KINDS):
        leaf = drawn_leaves.draw_leaf(kind, np.random.default_rng(number), 128)
        canvas = Image.new("RGB", leaf.size, (255, 255, 255))
        canvas.paste(leaf, mask=leaf.getchannel("A"))
        leaves.append(canvas)
    pairs = itertools.combinations(leaves, 2)
    return leaves + [Image.blend(*pair, share) for pair in pairs for share in (0.3, 0.5, 0.7)]


@pytest.fixture(scope="module")
def answers(server) -> dict[bytes, list[float]]:
    """Pictures, PNG and JPEG, whose answers differ by more than ten times the tolerance; their probabilities, asked
    one by one."""
    chosen = {}
    for number, image in enumerate(draw_blends()):
        content = encode(image, "PNG") if number % 2 else encode(image, "JPEG", quality=90)
        probabilities = list(server.post(content).json()["probabilities"].values())
        if all(np.abs(np.subtract(probabilities, other)).max() > 10 * TOLERANCE for other in chosen.values()):
            chosen[content] = probabilities
    assert len(chosen) >= 4
    return chosen


def assert_answer(body, content, answers):
    if content in answers:
        np.testing.assert_allclose(list(body["probabilities"].values()), answers[content], atol=TOLERANCE)
    else:
        assert body["error"]["code"] == {BROKEN: 422, FOREIGN: 415}[content]


@pytest.mark.parametrize("transport", [ask_rest, ask_grpc])
@pytest.mark.parametrize("place", [0, 1, 3])
def test_invalid_among_many(batching_server, answers, transport, place):
    contents = list(answers)[:3]
    contents.insert(place, BROKEN)
    for body, content in zip(batching_server.at_once(transport(batching_server), contents), contents, strict=True):
        assert_answer(body, content, answers)


def test_invalid_among_many_over_rest_and_grpc_mixed(batching_server, answers):
    first, second, *_ = answers
    contents = [(ask_rest, first), (ask_grpc, BROKEN), (ask_rest, FOREIGN), (ask_grpc, second)]
    bodies = batching_server.at_once(lambda each: each[0](batching_server)(each[1]), contents)
    for body, (_, content) in zip(bodies, contents, strict=True):
        assert_answer(body, content, answers)


def test_a_batch_of_broken_ones(batching_server, answers):
    for body in batching_server.at_once(ask_rest(batching_server), [BROKEN] * 4):
        assert_answer(body, BROKEN, answers)


def test_statuses_of_a_batch_are_each_requests_own(batching_server, answers):
    contents = [next(iter(answers)), BROKEN, FOREIGN, b'{"instances": []}']
    asked = batching_server.at_once(lambda each: batching_server.post(each).status_code, contents)
    assert asked == [200, 422, 415, 400]


def test_instances_and_single_pictures_share_a_batch(batching_server, answers):
    first, second, third, *_ = answers
    contents = [instances(first, BROKEN, second), third, instances(second), FOREIGN]
    several, single, one, error = batching_server.at_once(ask_rest(batching_server), contents)
    for body, content in zip(several["predictions"], (first, BROKEN, second), strict=True):
        assert_answer(body, content, answers)
    assert_answer(single, third, answers)
    assert_answer(one["predictions"][0], second, answers)
    assert_answer(error, FOREIGN, answers)


def test_a_request_alone_does_not_wait_for_others_in_vain(batching_server, answers):
    content = next(iter(answers))
    assert_answer(ask_rest(batching_server)(content), content, answers)


@pytest.mark.parametrize("name", ["server", "batching_server"])
def test_many_clients_at_once(name, answers, request):
    """200 requests from 16 threads, good and broken, PNG and JPEG, over REST and gRPC."""
    live = request.getfixturevalue(name)
    contents = [*answers, BROKEN, FOREIGN]
    rng = np.random.default_rng(0)
    asked = [(contents[rng.integers(len(contents))], (ask_rest, ask_grpc)[rng.integers(2)]) for _ in range(200)]
    with ThreadPoolExecutor(16) as pool:
        bodies = list(pool.map(lambda each: each[1](live)(each[0]), asked))
    for body, (content, _) in zip(bodies, asked, strict=True):
        assert_answer(body, content, answers)
