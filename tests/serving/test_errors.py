"""Error responses of a running server: the status over REST, and the same body over REST and gRPC."""

import io
import json
import struct

import httpx
import pytest
from PIL import Image

from tests.support.images import big_endian_tiff, corners, encode, gradient, png
from tests.support.payloads import instances
from tests.support.repack import with_entry
from tests.support.server import serving, wait_until
from vinegrape_client import Client
from vinegrape_client.errors import NotFound
from vinegrape_handler.contract import CONTENT_TYPE_HEADER, DEADLINE_HEADER, ERROR_HEADER

GOOD = encode(gradient(), "PNG")
BROKEN = GOOD[: len(GOOD) // 2]
FORMATS = "Send PNG, JPEG, WEBP, BMP or TIFF"

# Body, status, type, and words that the message must contain: values and names, not the exact text
CASES = {
    "no bytes": (b"", 400, "no_image", ("curl -T", "data", "image", "file")),
    "broken json": (b'{"instances": [', 400, "bad_request", ("JSON",)),
    "json of another form": (b'{"image": "AAAA"}', 400, "bad_request", ("instances",)),
    "no instances": (instances(), 400, "no_image", ("instances", "empty")),
    "too many instances": (instances(*[{}] * 33), 413, "too_large", ("33", "at most 32")),
    "too many bytes": (GOOD + bytes(20_000_001 - len(GOOD)), 413, "too_large", ("20000001", "at most 20000000")),
    "too many pixels": (png(8000, 8000, 8, 2, b""), 413, "too_large", ("8000 x 8000", "at most 50000000")),
    "a text": (b"a leaf", 415, "unsupported_format", ("text", FORMATS)),
    "a gif": (encode(gradient(), "GIF"), 415, "unsupported_format", ("GIF", FORMATS)),
    "a float tiff": (encode(Image.new("F", (2, 2)), "TIFF"), 415, "unsupported_format", ("floating-point", FORMATS)),
    "a transparent image": (encode(Image.new("LA", (2, 2)), "PNG"), 422, "broken_image", ("transparent",)),
    "half a png": (BROKEN, 422, "broken_image", ("cannot be decoded",)),
    "a damaged header": (GOOD[:8] + bytes(30), 422, "broken_image", ("header",)),
}
BINARY = {"content-type": "application/octet-stream"}


def assert_error(body, code, type_, words):
    assert list(body) == ["error"]
    assert list(body["error"]) == ["code", "type", "message"]
    assert (body["error"]["code"], body["error"]["type"]) == (code, type_)
    assert all(word in body["error"]["message"] for word in words)


@pytest.mark.parametrize("name", CASES)
def test_an_error_over_rest(tiny_server, name):
    content, code, type_, words = CASES[name]
    response = tiny_server.post(content, headers=BINARY)
    assert (response.status_code, response.headers["content-type"]) == (code, "application/json")
    assert response.headers[ERROR_HEADER] == type_
    assert_error(response.json(), code, type_, words)


@pytest.mark.parametrize("name", CASES)
def test_the_same_error_over_grpc(tiny_server, name):
    content, *expected = CASES[name]
    body = json.loads(tiny_server.call(content))
    assert_error(body, *expected)
    assert body == tiny_server.post(content, headers=BINARY).json()


@pytest.mark.parametrize("name", ["half a png", "a text", "too many pixels"])
def test_the_same_error_for_a_form_field(tiny_server, name):
    content, code, *_ = CASES[name]
    response = tiny_server.client.post(tiny_server.url, files={"image": ("leaf.png", content)})
    assert response.status_code == code
    assert response.json() == tiny_server.post(content).json()


@pytest.mark.parametrize("name", ["photo", "picture"])
def test_a_form_field_of_another_name(tiny_server, name):
    response = tiny_server.client.post(tiny_server.url, files={name: ("leaf.png", GOOD)})
    assert response.status_code == 400
    assert_error(response.json(), 400, "no_image", ("data", "image", "file"))


def test_a_form_without_an_image(tiny_server):
    response = tiny_server.client.post(tiny_server.url, data={"name": "value"})
    assert response.status_code == 400
    assert_error(response.json(), 400, "no_image", ("curl -T",))


@pytest.mark.parametrize("names", [("data", "data"), ("image", "file")])
def test_two_images_in_one_form(tiny_server, names):
    """TorchServe has parsed the form, or the worker does: neither ignores one of the images."""
    form = httpx.Request("POST", tiny_server.url, files=[(name, ("leaf.png", GOOD)) for name in names])
    content_type = form.headers["content-type"]
    for headers in ({"content-type": content_type}, {**BINARY, CONTENT_TYPE_HEADER: content_type}):
        response = tiny_server.post(form.read(), headers=headers)
        assert response.status_code == 400
        assert_error(response.json(), 400, "bad_request", ("2 images", "instances", *names))


# Content type, body, status, type and words: as the edge passes a body on
LABELLED = {
    "no boundary": ("multipart/form-data", b"--b\r\n", 400, "bad_request", ("boundary",)),
    "a cut form": ("multipart/form-data; boundary=b", b"--b\r\n", 400, "bad_request", ("form", "Unexpected end")),
    "an unknown charset": (
        "multipart/form-data; boundary=b",
        b'--b\r\nContent-Disposition: form-data; name="data"\r\nContent-Type: a/b; charset=nope\r\n\r\n1\r\n--b--',
        400,
        "bad_request",
        ("charset", "nope"),
    ),
    "another field": (
        "multipart/form-data; boundary=b",
        b'--b\r\nContent-Disposition: form-data; name="photo"\r\n\r\n1\r\n--b--',
        400,
        "no_image",
        ("data", "image", "file"),
    ),
    "a text form": ("application/x-www-form-urlencoded", b"a=b", 400, "bad_request", ("x-www-form-urlencoded",)),
    "a mail": ("multipart/mixed; boundary=b", b"--b\r\n", 415, "unsupported_format", ("multipart/mixed",)),
}


@pytest.mark.parametrize("name", LABELLED)
def test_a_body_that_its_content_type_explains(tiny_server, name):
    content_type, content, code, type_, words = LABELLED[name]
    response = tiny_server.post(content, headers={**BINARY, CONTENT_TYPE_HEADER: content_type})
    assert response.status_code == code
    assert_error(response.json(), code, type_, words)


def test_json_with_millions_of_values_is_refused_at_once(tiny_server):
    response = tiny_server.post(b'{"instances": [' + b"[]," * 9_000_000 + b"0]}", headers=BINARY)
    assert response.status_code == 400
    assert_error(response.json(), 400, "bad_request", ("values", "4200"))


def test_a_request_after_its_deadline(tiny_server):
    def get(error):
        return tiny_server.metrics()[("vinegrape_requests_total", error, "504", "rest")]

    before = get("deadline_exceeded")
    response = tiny_server.post(GOOD, headers={**BINARY, DEADLINE_HEADER: "1000"})
    assert response.status_code == 504
    assert_error(response.json(), 504, "deadline_exceeded", ("deadline",))
    assert get("deadline_exceeded") == before + 1


def test_an_image_that_needs_gigabytes_is_too_large_and_the_worker_lives(tiny_server):
    """Its rows are few bytes; a single column of them would need a list of pointers of 400 MB."""
    deaths = tiny_server.metrics()[("vinegrape_worker_deaths_total",)]
    response = tiny_server.post(png(1, 50_000_000, 8, 0, bytes(2 * 50_000_000)), headers=BINARY)
    assert response.status_code == 413
    assert_error(response.json(), 413, "too_large", ("longer side",))
    assert tiny_server.post(GOOD).status_code == 200
    assert tiny_server.metrics()[("vinegrape_worker_deaths_total",)] == deaths


def test_libraries_do_not_log_images(tiny_server):
    """Pillow warns of each tag that it cannot read; libtiff writes to standard error."""
    tags = tiff_with_damaged_tags(900)
    with pytest.warns(UserWarning, match="larger than file") as warned:
        Image.open(io.BytesIO(tags)).load()
    assert len(warned) >= 900
    lzw = encode(gradient(), "TIFF", compression="tiff_lzw")
    before = tiny_server.log.read_text()
    assert tiny_server.post(tags).status_code == 200
    assert tiny_server.post(lzw[:8] + bytes(20) + lzw[28:]).status_code == 422
    assert tiny_server.log.read_text() == before


def tiff_with_damaged_tags(count: int) -> bytes:
    """A TIFF with tags of unknown numbers, whose values are larger than the file."""
    small = big_endian_tiff(corners(8, 8))
    directory, rest = small[10 : 10 + 9 * 12], small[10 + 9 * 12 + 4 :]
    tags = b"".join(struct.pack(">HHII", 40_000 + number, 2, 2**31, 0) for number in range(count))
    moved = b"".join(
        struct.pack(">HHII", number, kind, length, value + count * 12 if number in (258, 273) else value)
        for number, kind, length, value in struct.iter_unpack(">HHII", directory)
    )
    return small[:8] + struct.pack(">H", 9 + count) + moved + tags + bytes(4) + rest


def test_a_body_that_torchserve_cannot_parse_is_refused_and_not_logged(tiny_server, leaf):
    """Without the edge, TorchServe sees the content type of a form, which it refuses. docs/api.md warns of this."""
    before = tiny_server.log.read_text()
    response = tiny_server.post(leaf, headers={"content-type": "application/x-www-form-urlencoded"})
    assert response.status_code >= 400
    assert tiny_server.post(leaf).status_code == 200
    assert tiny_server.log.read_text() == before


def test_instances_with_too_many_pixels_in_total_are_refused(tiny_server):
    """Each image is small enough, but decoding all three could take longer than `response_timeout_s`."""
    large = encode(Image.new("L", (5000, 4000)), "PNG")
    assert tiny_server.post(instances(large, large)).status_code == 200
    response = tiny_server.post(instances(large, large, large))
    assert response.status_code == 413
    assert_error(response.json(), 413, "too_large", ("longer to decode than 50000000 pixels",))


@pytest.mark.parametrize("body", [b"[1, 2]", b'"text"', b"{", "\ufeff{}".encode()])
def test_other_json_is_a_bad_request(tiny_server, body):
    response = tiny_server.post(body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "bad_request"


def test_a_get_without_an_accept_header(tiny_server):
    assert_error(tiny_server.client.get(tiny_server.url).json(), 400, "no_image", ("Accept: application/json",))


def test_invalid_instances_do_not_fail_their_neighbours(tiny_server):
    response = tiny_server.post(instances(GOOD, BROKEN, "no instance", b"", GOOD))
    assert response.status_code == 200
    first, *errors, last = response.json()["predictions"]
    assert [body["error"]["code"] for body in errors] == [422, 400, 400]
    assert first["probabilities"] == pytest.approx(tiny_server.post(GOOD).json()["probabilities"], abs=1e-3)
    assert last == first


def test_every_format_and_many_modes_are_decoded(tiny_server):
    """Tests with the libraries of the server's own environment."""
    images = [encode(gradient(), name) for name in ("PNG", "JPEG", "WEBP", "BMP", "TIFF")]
    images += [encode(gradient().convert(mode), "PNG") for mode in ("L", "LA", "1", "P", "RGBA")]
    images += [encode(gradient().convert("CMYK"), "JPEG"), encode(gradient(), "TIFF", compression="tiff_lzw")]
    assert all(Image.open(io.BytesIO(content)) for content in images)
    predictions = tiny_server.post(instances(*images)).json()["predictions"]
    assert ["probability" in body for body in predictions] == [True] * 12


@pytest.mark.live
def test_a_handler_that_fails_is_a_503_and_is_logged_once(tiny_archive, tmp_path):
    code = """
from vinegrape_handler.handler import Handler

class Fails(Handler):
    def handle(self, data, context):
        if data[0].get("body") == b"fail":
            raise ValueError("requested by the test")
        return super().handle(data, context)
"""
    with serving(with_entry(tiny_archive, tmp_path, code), tmp_path / "log") as live:
        response = live.post(b"fail", headers={"content-type": "image/png"})
        assert response.status_code == 503
        assert_error(response.json(), 503, "inference_failed", ("Try again",))
        assert live.post(GOOD).status_code == 200
        wait_until(lambda: "ValueError: requested by the test" in live.log.read_text())
        (line,) = [line for line in live.log.read_text().splitlines() if "ValueError" in line]
        assert line.endswith("ValueError: requested by the test")


def test_the_server_classifies_images_after_every_error(tiny_server):
    for content, code, *_ in CASES.values():
        assert tiny_server.post(content, headers={"content-type": "image/png"}).status_code == code
        assert tiny_server.post(GOOD).status_code == 200


def test_a_model_without_activation_maps_has_no_explanations(tiny_server, image):
    response = tiny_server.client.post("/explanations/vinegrape", content=image, headers=BINARY)
    assert response.status_code == 404
    assert_error(response.json(), 404, "not_found", ("no activation maps",))
    with Client(f"grpc://{tiny_server.grpc_address}") as client, pytest.raises(NotFound, match="no activation maps"):
        client.explain(image)
    described = tiny_server.client.get("/predictions/vinegrape", headers={"accept": "application/json"})
    assert described.json()["explanations"] is False
