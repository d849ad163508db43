"""The Open Inference Protocol with a model of 2 x 2 pixels, which accepts three images per request."""

import base64
import json
import struct

import numpy as np
import pytest

from tests.support.protocol_calls import ABSTAINING, KNOWN, MODEL, NAZLI, UNKNOWN, read
from vinegrape_handler.errors import BadRequest, BrokenImage, DeadlineExceeded
from vinegrape_handler.protocols.route import Pending

PATH = "/v2/models/vinegrape/infer"
IMAGES = [b"first", b"second \xff"]
ENCODED = [base64.b64encode(image).decode() for image in IMAGES]
BINARY = b"".join(struct.pack("<I", len(image)) + image for image in IMAGES)
PIXELS = list(range(12))


def tensor(data, name="image", datatype="BYTES", shape=None) -> dict:
    return {"name": name, "datatype": datatype, "shape": shape or [len(data)], "data": data}


def post(*inputs, model=MODEL, **more):
    return read(PATH, json.dumps({"inputs": list(inputs), **more}).encode(), model)


def post_binary(head: dict, binary: bytes, length=None):
    encoded = json.dumps(head).encode()
    size = str(len(encoded) if length is None else length)
    return read(PATH, encoded + binary, **{"Inference-Header-Content-Length": size})


def message(response) -> str:
    assert list(response.body) == ["error"]
    assert response.error is not None
    return response.body["error"]


# Descriptions


def test_the_server_describes_itself():
    assert read("/v2").respond([]).body == {
        "name": "vinegrape", "version": "0123456789ab", "extensions": ["binary_tensor_data"],
    }  # fmt: skip


@pytest.mark.parametrize("path", ["/v2/models/vinegrape", "/v2/models/vinegrape/versions/0123456789ab"])
def test_the_model_is_described(path):
    assert read(path).respond([]).body == {
        "name": "vinegrape",
        "versions": ["0123456789ab"],
        "platform": "onnxruntime_onnx",
        "inputs": [
            {"name": "image", "datatype": "BYTES", "shape": [-1]},
            {"name": "pixels", "datatype": "UINT8", "shape": [-1, 2, 2, 3]},
        ],
        "outputs": [
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]},
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
        ],
    }


def test_a_model_that_abstains_has_two_more_outputs():
    outputs = read("/v2/models/vinegrape", model=ABSTAINING).respond([]).body["outputs"]
    assert outputs[2:] == [
        {"name": "known", "datatype": "BOOL", "shape": [-1]},
        {"name": "ood_score", "datatype": "FP32", "shape": [-1]},
    ]


# Inputs


@pytest.mark.parametrize("shape", [[2], [2, 1]])
@pytest.mark.parametrize("nested", [False, True])
def test_encoded_images_in_json(shape, nested):
    data = [[text] for text in ENCODED] if nested else ENCODED
    assert post(tensor(data, shape=shape)).images == IMAGES


def test_encoded_images_in_binary():
    parameters = {"binary_data_size": len(BINARY)}
    head = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [2], "parameters": parameters}]}
    assert post_binary(head, BINARY).images == IMAGES


@pytest.mark.parametrize("data", [PIXELS, np.reshape(PIXELS, (1, 2, 2, 3)).tolist()])
def test_pixels_in_json(data):
    (image,) = post(tensor(data, "pixels", "UINT8", [1, 2, 2, 3])).images
    np.testing.assert_array_equal(image, np.reshape(PIXELS, (2, 2, 3)))
    assert image.dtype == np.uint8


def test_pixels_in_binary():
    parameters = {"binary_data_size": 24}
    head = {"inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [2, 2, 2, 3], "parameters": parameters}]}
    first, second = post_binary(head, bytes(range(24))).images
    np.testing.assert_array_equal(first, np.reshape(PIXELS, (2, 2, 3)))
    np.testing.assert_array_equal(second, first + 12)


def test_the_work_of_the_images_is_limited_as_that_of_instances():
    assert post(tensor(ENCODED)).is_list


def test_base64_that_is_invalid_is_the_error_of_its_image():
    first, second = post(tensor([ENCODED[0], "?"])).images
    assert first == IMAGES[0]
    assert isinstance(second, BadRequest)


OTHER = tensor(ENCODED)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "must begin with JSON"),
        (b"\x1f\x8b\x08 compressed", "Compressed bodies"),
        (b"[]", "must begin with JSON"),
        (b"{", "cannot be read"),
        (b"{}", '"inputs" must be a list'),
        (b'{"inputs": []}', "has 0 inputs"),
        (b'{"inputs": [1]}', "must be a JSON object"),
        ({"inputs": [OTHER, OTHER]}, "has 2 inputs"),
        ({"inputs": [{**OTHER, "name": "input"}]}, "The input is 'input' with datatype 'BYTES'"),
        ({"inputs": [{**OTHER, "name": "pixels"}]}, "'pixels' with datatype 'BYTES'"),
        ({"inputs": [{**OTHER, "datatype": "FP32"}]}, "'image' with datatype 'FP32'"),
        ({"inputs": [{**OTHER, "shape": [2, 2]}]}, r"The shape of 'image' is [2, 2]; it must be [N] or [N, 1]."),
        ({"inputs": [{**OTHER, "shape": [1]}]}, "more elements than its shape, 1"),
        ({"inputs": [{**OTHER, "shape": [3]}]}, "fewer elements than its shape, 3"),
        ({"inputs": [{**OTHER, "shape": [0]}]}, "has no image"),
        ({"inputs": [{**OTHER, "shape": 2}]}, "shape must be a list"),
        ({"inputs": [{**OTHER, "shape": []}]}, "The input's shape is []"),
        ({"inputs": [{**OTHER, "shape": [-1]}]}, "The input's shape is [-1]"),
        ({"inputs": [{**OTHER, "shape": [True]}]}, "The input's shape is [True]"),
        ({"inputs": [{**OTHER, "data": None}]}, '"data" must be a list'),
        ({"inputs": [{**OTHER, "data": [1, 2]}]}, "must be strings"),
        ({"inputs": [{**OTHER, "parameters": 1}]}, "must be a JSON object"),
        ({"inputs": [{**OTHER, "parameters": {"binary_data_size": 3}}]}, "binary_data_size 3, but 0 bytes follow"),
        ({"inputs": [{**OTHER, "parameters": {"shared_memory_region": "a"}}]}, "shared memory"),
        ({"inputs": [tensor(PIXELS, "pixels", "UINT8", [1, 2, 3, 2])]}, "it must be [N, 2, 2, 3]"),
        ({"inputs": [tensor(PIXELS[:11], "pixels", "UINT8", [1, 2, 2, 3])]}, "has 11 values"),
        ({"inputs": [tensor([256] * 12, "pixels", "UINT8", [1, 2, 2, 3])]}, "from 0 to 255"),
        ({"inputs": [OTHER], "id": 1}, '"id" of the request must be a string'),
        ({"inputs": [OTHER], "outputs": 1}, '"outputs" must be a list'),
        ({"inputs": [OTHER], "outputs": [{"name": "classes"}]}, "no output 'classes'; the outputs are probabilities"),
        ({"inputs": [OTHER], "outputs": [{"name": "known"}]}, "no output 'known'"),
        ({"inputs": [OTHER], "outputs": [{"name": ["label"]}]}, "no output"),
        ({"inputs": [OTHER], "outputs": [{"name": "label"}] * 2}, "more than once"),
        (
            {"inputs": [OTHER], "outputs": [{"name": "label", "parameters": {"classification": 2}}]},
            "'classification', which is not supported",
        ),
    ],
)
def test_a_request_that_is_not_valid_has_a_text_as_its_error(body, words):
    response = read(PATH, body if isinstance(body, bytes) else json.dumps(body).encode())
    assert response.error.status == 400
    assert words in message(response)


def test_more_images_than_the_server_allows_are_refused_before_they_are_read():
    response = post(tensor(["?"] * 4))
    assert response.error.status == 413
    assert message(response) == "The request has 4 images; at most 3 are accepted."


@pytest.mark.parametrize("length", ["", "-1", "0", "1.5", "99999", "9" * 20])
def test_a_length_of_the_json_that_is_not_valid(length):
    response = post_binary({"inputs": [OTHER]}, b"", length)
    assert response.error.status == 400
    assert "The header inference-header-content-length is" in message(response)


@pytest.mark.parametrize("size", [None, 10, len(BINARY) + 1, "1", True])
def test_a_size_of_the_binary_data_that_is_not_valid(size):
    parameters = {} if size is None else {"binary_data_size": size}
    head = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [2], "parameters": parameters}]}
    assert f"but {len(BINARY)} bytes follow the JSON" in message(post_binary(head, BINARY))


def test_nested_json_is_limited_but_the_numbers_of_pixels_are_not():
    many = [0] * 36
    assert isinstance(post(tensor(many, "pixels", "UINT8", [3, 2, 2, 3])), Pending)
    nested = b'{"inputs": [{"data": [' + b"[]," * 2000 + b"[]]}]}"
    assert "values; at most" in message(read(PATH, nested))


# Outputs


def respond(*results, model=MODEL, **more):
    return post(tensor(ENCODED), model=model, **more).respond(results)


def test_all_outputs_in_json():
    assert respond(NAZLI, NAZLI, id="7").body == {
        "model_name": "vinegrape",
        "model_version": "0123456789ab",
        "id": "7",
        "outputs": [
            {"name": "probabilities", "datatype": "FP32", "shape": [2, 2], "data": [0.25, 0.75, 0.25, 0.75]},
            {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["Nazli", "Nazli"]},
        ],
    }
    assert "id" not in respond(NAZLI).body


def test_the_outputs_of_a_model_that_abstains():
    outputs = respond(KNOWN, UNKNOWN, model=ABSTAINING).body["outputs"]
    assert {output["name"]: output["data"] for output in outputs} == {
        "probabilities": [0.25, 0.75, 0.25, 0.75],
        "label": ["Nazli", ""],
        "known": [True, False],
        "ood_score": [0.25, 0.75],
    }


def test_requested_outputs_are_returned_in_their_order():
    body = respond(NAZLI, outputs=[{"name": "label"}]).body
    assert [output["name"] for output in body["outputs"]] == ["label"]
    body = respond(NAZLI, outputs=[{"name": "label"}, {"name": "probabilities"}]).body
    assert [output["name"] for output in body["outputs"]] == ["label", "probabilities"]


def split(response) -> tuple[dict, bytes]:
    assert response.content_type == "application/octet-stream"
    length = int(response.headers["inference-header-content-length"])
    return json.loads(response.body[:length]), response.body[length:]


def test_all_outputs_in_binary():
    head, binary = split(respond(KNOWN, UNKNOWN, model=ABSTAINING, parameters={"binary_data_output": True}))
    sizes = {output["name"]: output["parameters"]["binary_data_size"] for output in head["outputs"]}
    assert sizes == {"probabilities": 16, "label": 13, "known": 2, "ood_score": 8}
    assert np.frombuffer(binary[:16], "<f4").tolist() == [0.25, 0.75, 0.25, 0.75]
    assert binary[16:29] == b"\x05\0\0\0Nazli\0\0\0\0"
    assert binary[29:31] == b"\x01\0"
    assert np.frombuffer(binary[31:], "<f4").tolist() == [0.25, 0.75]
    assert not any("data" in output for output in head["outputs"])


def test_an_output_chooses_its_own_form():
    outputs = [{"name": "label", "parameters": {"binary_data": False}}, {"name": "probabilities"}]
    head, binary = split(respond(NAZLI, outputs=outputs, parameters={"binary_data_output": True}))
    assert head["outputs"][0]["data"] == ["Nazli"]
    assert len(binary) == 8


@pytest.mark.parametrize("error", [BrokenImage("The image is damaged."), DeadlineExceeded("Too late.")])
def test_the_first_error_of_an_image_is_that_of_the_request(error):
    response = respond(NAZLI, error, BadRequest("later"))
    assert type(response.error) is type(error)
    assert message(response) == f"The image with index 1 has an error: {error}"
