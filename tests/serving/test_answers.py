"""The same picture gives the same answer over every way in."""

import base64
import json
import socket
import zipfile
from http.client import HTTPResponse

import httpx
import numpy as np
import pytest

from vinegrape_handler.metadata import METADATA_FILE, SELF_CHECK_FOLDER, Metadata


@pytest.fixture(scope="module")
def metadata(archive) -> Metadata:
    with zipfile.ZipFile(archive) as opened:
        return Metadata.from_json(opened.read(METADATA_FILE))


@pytest.fixture(scope="module")
def expected(server, leaf) -> dict:
    response = server.post(leaf)
    assert response.status_code == 200
    return response.json()


def instances(*pictures) -> bytes:
    return json.dumps({"instances": [{"b64": base64.b64encode(each).decode()} for each in pictures]}).encode()


# The answer


def test_its_shape(server, leaf, metadata):
    response = server.post(leaf)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    answer = response.json()
    assert list(answer) == ["label", "probability", "probabilities", "model"]
    assert list(answer["probabilities"]) == list(metadata.classes)
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert all(0 <= value <= 1 for value in answer["probabilities"].values())
    assert answer["label"] == max(answer["probabilities"], key=answer["probabilities"].get)
    assert answer["probability"] == answer["probabilities"][answer["label"]]
    assert answer["model"] == {"name": "vinegrape", "version": metadata.version}


def test_the_archives_own_pictures_have_the_answers_that_it_carries(server, archive, metadata):
    with zipfile.ZipFile(archive) as opened:
        pictures = [opened.read(f"{SELF_CHECK_FOLDER}/{check.file}") for check in metadata.self_check]
    response = server.post(instances(*pictures))
    for answer, check in zip(response.json()["predictions"], metadata.self_check, strict=True):
        recorded = check.probabilities["onnx_int8"]
        np.testing.assert_allclose(list(answer["probabilities"].values()), recorded, atol=0.05)


# The ways in


@pytest.mark.parametrize("content_type", [None, "image/png", "application/octet-stream", "image/jpeg"])
@pytest.mark.parametrize("method", ["POST", "PUT"])  # PUT is what curl -T does
def test_a_raw_body(server, leaf, expected, method, content_type):
    headers = {"content-type": content_type} if content_type else {}
    response = server.client.request(method, server.url, content=leaf, headers=headers)
    assert (response.status_code, response.json()) == (200, expected)


@pytest.mark.parametrize("name", ["data", "image", "file"])
def test_a_form_field(server, leaf, expected, name):
    response = server.client.post(server.url, files={name: ("leaf.png", leaf, "image/png")})
    assert (response.status_code, response.json()) == (200, expected)


def test_a_form_field_among_others(server, leaf, expected):
    form = {"comment": (None, "from the garden"), "image": ("leaf.png", leaf)}
    assert server.client.post(server.url, files=form).json() == expected


@pytest.mark.parametrize("content_type", ["application/json", "application/octet-stream", None])
def test_instances(server, leaf, expected, content_type):
    response = server.post(instances(leaf), headers={"content-type": content_type} if content_type else {})
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert response.json() == {"predictions": [expected]}


@pytest.mark.parametrize("key", ["data", "body", "image", "file"])
def test_grpc(server, leaf, expected, key):
    assert json.loads(server.call(leaf, key)) == expected


@pytest.mark.parametrize("key", ["data", "body"])
def test_instances_over_grpc(server, leaf, expected, key):
    assert json.loads(server.call(instances(leaf), key)) == {"predictions": [expected]}


def test_a_body_in_chunks(server, leaf, expected):
    """A body whose length is not told before it."""
    pieces = (leaf[start : start + 1000] for start in range(0, len(leaf), 1000))
    response = server.client.post(server.url, content=pieces)
    assert response.request.headers["transfer-encoding"] == "chunked"
    assert (response.status_code, response.json()) == (200, expected)


def test_a_path_that_names_the_version(server, leaf, expected, metadata):
    assert server.client.post(f"{server.url}/{metadata.version}", content=leaf).json() == expected


@pytest.mark.parametrize("name", [b"M\xfcller", "Müller, 葡萄".encode(), b"\x80\xff"])
def test_a_header_that_is_not_ascii_does_not_hurt(server, leaf, expected, name):
    """Clients send what they like; TorchServe hands headers on to the worker."""
    head = b"POST /predictions/vinegrape HTTP/1.1\r\nHost: leaf\r\nX-Name: " + name
    with socket.create_connection(("127.0.0.1", server.ports["rest_port"]), timeout=60) as connection:
        connection.sendall(head + b"\r\nContent-Length: %d\r\n\r\n" % len(leaf) + leaf)
        response = HTTPResponse(connection)
        response.begin()
        assert (response.status, json.load(response)) == (200, expected)
    assert server.post(leaf).json() == expected


# The description


def test_get_describes_the_model(server, metadata):
    response = server.client.get(server.url, headers={"accept": "application/json"})
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    described = response.json()
    assert described["classes"] == list(metadata.classes)
    assert (described["name"], described["version"]) == ("vinegrape", metadata.version)
    assert (described["input_size"], described["backend"]) == (metadata.input_size, "onnx_int8")
    assert described["limits"] == {"image_bytes": 20_000_000, "image_pixels": 50_000_000, "instances": 32}
    assert described["metrics"] == metadata.metrics


# Beside the predictions


def test_metrics(server):
    response = httpx.get(f"http://127.0.0.1:{server.ports['metrics_port']}/metrics")
    assert response.status_code == 200
    assert "ts_inference_requests_total" in response.text


def test_two_servers_on_one_machine(server, batching_server, leaf, expected):
    assert server.ports["rest_port"] != batching_server.ports["rest_port"]
    assert server.post(leaf).json()["label"] == batching_server.post(leaf).json()["label"] == expected["label"]
