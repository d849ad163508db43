"""DESIGN's table, live: the status over REST, and the same body over REST and gRPC."""

import base64
import io
import json

import pytest
from PIL import Image

from tests.support.images import encode, gradient, png
from tests.support.server import serving, wait_until, with_entry

GOOD = encode(gradient(), "PNG")
BROKEN = GOOD[: len(GOOD) // 2]


def b64(data) -> dict:
    return {"b64": base64.b64encode(data).decode()}


def instances(*values) -> bytes:
    return json.dumps({"instances": values}).encode()


CASES = {
    "no bytes": (b"", 400, "no_image", "carries no image"),
    "broken json": (b'{"instances": [', 400, "bad_request", "JSON cannot be read"),
    "json of another form": (b'{"image": "AAAA"}', 400, "bad_request", 'no list "instances"'),
    "no instances": (instances(), 400, "no_image", '"instances" is empty'),
    "too many instances": (instances(*[{}] * 33), 413, "too_large", "33 instances; at most 32"),
    "too many bytes": (GOOD + bytes(20_000_001 - len(GOOD)), 413, "too_large", "20000001 bytes; at most 20000000"),
    "too many pixels": (png(8000, 8000, 8, 2, b""), 413, "too_large", "8000 x 8000 pixels; at most 50000000"),
    "a text": (b"a leaf", 415, "unsupported_format", "PNG, JPEG, WEBP, BMP, TIFF"),
    "a gif": (encode(gradient(), "GIF"), 415, "unsupported_format", "PNG, JPEG, WEBP, BMP, TIFF"),
    "a float tiff": (encode(Image.new("F", (2, 2)), "TIFF"), 415, "unsupported_format", "32-bit pixels"),
    "half a png": (BROKEN, 422, "broken_image", "cannot be decoded"),
    "a damaged header": (GOOD[:8] + bytes(30), 422, "broken_image", "header is damaged"),
}


def assert_error(body, code, type_, said):
    assert list(body) == ["error"]
    assert list(body["error"]) == ["code", "type", "message"]
    assert (body["error"]["code"], body["error"]["type"]) == (code, type_)
    assert said in body["error"]["message"]


@pytest.mark.parametrize("name", CASES)
def test_over_rest(server, name):
    content, code, type_, said = CASES[name]
    response = server.post(content, headers={"content-type": "application/octet-stream"})
    assert (response.status_code, response.headers["content-type"]) == (code, "application/json")
    assert_error(response.json(), code, type_, said)


@pytest.mark.parametrize("name", CASES)
def test_the_same_body_over_grpc(server, name):
    content, *expected = CASES[name]
    body = json.loads(server.call(content))
    assert_error(body, *expected)
    assert body == server.post(content, headers={"content-type": "application/octet-stream"}).json()


@pytest.mark.parametrize("name", ["half a png", "a text", "too many pixels"])
def test_the_same_error_for_a_form_field(server, name):
    content, code, *_ = CASES[name]
    response = server.client.post(server.url, files={"image": ("leaf.png", content)})
    assert response.status_code == code
    assert response.json() == server.post(content).json()


@pytest.mark.parametrize("name", ["photo", "picture"])
def test_a_form_without_a_field_of_ours(server, name):
    response = server.client.post(server.url, files={name: ("leaf.png", GOOD)})
    assert response.status_code == 400
    assert_error(response.json(), 400, "no_image", "form field data, image or file")


def test_a_form_without_an_image_is_told_what_to_do(server):
    response = server.client.post(server.url, data={"name": "value"})
    assert response.status_code == 400
    assert_error(response.json(), 400, "no_image", "curl -T leaf.jpg URL")


def test_curls_data_binary_fails_before_any_code_of_ours_and_leaves_the_log_alone(server, leaf):
    """curl calls the body a form; TorchServe cannot parse it and says so in its own words. README warns of it."""
    before = server.log.read_text()
    response = server.post(leaf, headers={"content-type": "application/x-www-form-urlencoded"})
    assert response.status_code >= 400
    assert server.post(leaf).status_code == 200
    assert server.log.read_text() == before


def test_instances_with_too_many_pixels_together_are_refused(server):
    """Each of the three would do alone; one after the other they could outlast a worker's time."""
    large = encode(Image.new("L", (5000, 4000)), "PNG")
    assert server.post(instances(b64(large), b64(large))).status_code == 200
    response = server.post(instances(b64(large), b64(large), b64(large)))
    assert response.status_code == 413
    assert_error(response.json(), 413, "too_large", "60000000 pixels to decode together")


@pytest.mark.parametrize("body", [b"[1, 2]", b'"text"', b"{", "\ufeff{}".encode()])
def test_json_that_is_no_instances_is_a_bad_request(server, body):
    response = server.post(body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "bad_request"


def test_a_get_that_asks_for_nothing(server):
    assert_error(server.client.get(server.url).json(), 400, "no_image", "'Accept: application/json'")


def test_instances_with_broken_ones_are_answered_in_order(server):
    answer = server.post(instances(b64(GOOD), b64(BROKEN), "no instance", b64(b""), b64(GOOD)))
    assert answer.status_code == 200
    first, *errors, last = answer.json()["predictions"]
    assert [each["error"]["code"] for each in errors] == [422, 400, 400]
    assert first["probabilities"] == pytest.approx(server.post(GOOD).json()["probabilities"], abs=1e-3)
    assert last == first


def test_every_format_and_many_modes_live(server):
    """The libraries of the server's own environment decode them too."""
    pictures = [encode(gradient(), name) for name in ("PNG", "JPEG", "WEBP", "BMP", "TIFF")]
    pictures += [encode(gradient().convert(mode), "PNG") for mode in ("L", "LA", "1", "P", "RGBA")]
    pictures += [encode(gradient().convert("CMYK"), "JPEG"), encode(gradient(), "TIFF", compression="tiff_lzw")]
    assert all(Image.open(io.BytesIO(each)) for each in pictures)
    answer = server.post(instances(*map(b64, pictures)))
    assert ["probability" in each for each in answer.json()["predictions"]] == [True] * 12


def test_a_handler_that_fails_is_503_and_said_once(small_archive, tmp_path):
    code = """
from vinegrape_handler.handler import Handler

class Fails(Handler):
    def handle(self, data, context):
        if data[0].get("body") == b"fail":
            raise ValueError("asked for")
        return super().handle(data, context)
"""
    with serving(with_entry(small_archive, tmp_path, code), tmp_path / "log") as live:
        response = live.post(b"fail", headers={"content-type": "image/png"})
        assert (response.status_code, response.json()["message"]) == (503, "Prediction failed")
        assert live.post(GOOD).status_code == 200
        wait_until(lambda: "ValueError: asked for" in live.log.read_text())
        assert live.log.read_text().count("ValueError: asked for") == 1


def test_the_server_goes_on(server, leaf):
    for content, code, *_ in CASES.values():
        assert server.post(content, headers={"content-type": "image/png"}).status_code == code
        assert server.post(leaf).status_code == 200
