"""The same image gets the same answer, no matter how a request contains it."""

import base64
import json
import socket
from http.client import HTTPResponse

import httpx
import pytest
from PIL import Image

from tests.support.images import encode
from tests.support.payloads import instances
from tests.support.processes import temporary_folder
from tests.support.tiny_archive import CLASSES, RED
from vinegrape_handler.contract import CONTENT_TYPE_HEADER, ERROR_HEADER

IMAGE = encode(Image.new("RGB", (8, 8), RED), "PNG")
# 3 / 4 for Ak, and 0.6 / 4 and 0.4 / 4 for the last two classes: see tests/support/tiny_archive.py
ANSWER = {
    "label": "Ak",
    "probability": pytest.approx(0.75),
    "probabilities": pytest.approx(dict(zip(CLASSES, (0.75, 0, 0, 0.15, 0.1), strict=True))),
    "model": {"name": "vinegrape", "version": "tiny"},
}


def test_the_fields_of_an_answer(tiny_server):
    response = tiny_server.post(IMAGE)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert response.headers[ERROR_HEADER] == "none"
    answer = response.json()
    assert answer == ANSWER
    assert list(answer) == ["label", "probability", "probabilities", "model"]
    assert list(answer["probabilities"]) == list(CLASSES)
    assert answer["probability"] == answer["probabilities"][answer["label"]]


# Requests that contain an image


@pytest.mark.parametrize("content_type", [None, "image/png", "application/octet-stream", "image/jpeg"])
@pytest.mark.parametrize("method", ["POST", "PUT"])  # curl -T sends PUT
def test_a_raw_body(tiny_server, method, content_type):
    headers = {"content-type": content_type} if content_type else {}
    response = tiny_server.client.request(method, tiny_server.url, content=IMAGE, headers=headers)
    assert (response.status_code, response.json()) == (200, ANSWER)


@pytest.mark.parametrize("name", ["data", "image", "file"])
def test_a_form_field(tiny_server, name):
    response = tiny_server.client.post(tiny_server.url, files={name: ("leaf.png", IMAGE, "image/png")})
    assert (response.status_code, response.json()) == (200, ANSWER)


def test_a_form_field_among_others(tiny_server):
    form = {"comment": (None, "from the garden"), "image": ("leaf.png", IMAGE)}
    assert tiny_server.client.post(tiny_server.url, files=form).json() == ANSWER


def as_the_edge_sends_it(content_type: str) -> dict[str, str]:
    return {CONTENT_TYPE_HEADER: content_type, "content-type": "application/octet-stream"}


@pytest.mark.parametrize("name", ["data", "image", "file"])
def test_a_form_that_the_worker_parses(tiny_server, name):
    """The edge does not let TorchServe see that the body is a form."""
    form = httpx.Request("POST", "http://leaf", files={"note": (None, "a leaf"), name: ("leaf.png", IMAGE)})
    response = tiny_server.post(form.read(), headers=as_the_edge_sends_it(form.headers["content-type"]))
    assert (response.status_code, response.json()) == (200, ANSWER)


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"])
def test_a_body_with_a_wrong_content_type(tiny_server, content_type):
    """curl --data-binary and other clients label an image, or JSON, as a form."""
    headers = as_the_edge_sends_it(content_type)
    assert tiny_server.post(IMAGE, headers=headers).json() == ANSWER
    assert tiny_server.post(instances(IMAGE), headers=headers).json() == {"predictions": [ANSWER]}


def test_base64_as_clients_write_it(tiny_server):
    texts = [
        "data:image/png;base64," + base64.b64encode(IMAGE).decode(),
        base64.encodebytes(IMAGE).decode(),
        base64.encodebytes(IMAGE).decode().replace("\n", "\r\n"),
        base64.urlsafe_b64encode(IMAGE).decode().rstrip("="),
    ]
    response = tiny_server.post(instances(*[{"b64": text} for text in texts]))
    assert response.json() == {"predictions": [ANSWER] * len(texts)}


@pytest.mark.parametrize("content_type", ["application/json", "application/octet-stream", None])
def test_json_instances(tiny_server, content_type):
    headers = {"content-type": content_type} if content_type else {}
    response = tiny_server.post(instances(IMAGE), headers=headers)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert response.json() == {"predictions": [ANSWER]}


@pytest.mark.parametrize("key", ["data", "body", "image", "file"])
def test_an_image_over_grpc(tiny_server, key):
    assert json.loads(tiny_server.call(IMAGE, key)) == ANSWER


@pytest.mark.parametrize("key", ["data", "body"])
def test_json_instances_over_grpc(tiny_server, key):
    assert json.loads(tiny_server.call(instances(IMAGE), key)) == {"predictions": [ANSWER]}


def test_a_body_in_chunks(tiny_server, leaf):
    """The client does not send the length of the body first."""
    chunks = (leaf[start : start + 1000] for start in range(0, len(leaf), 1000))
    response = tiny_server.client.post(tiny_server.url, content=chunks)
    assert response.request.headers["transfer-encoding"] == "chunked"
    assert response.status_code == 200
    assert response.json() == tiny_server.post(leaf).json()


def test_a_path_with_the_version(tiny_server):
    assert tiny_server.client.post(f"{tiny_server.url}/tiny", content=IMAGE).json() == ANSWER


@pytest.mark.parametrize("name", [b"M\xfcller", "Müller, 葡萄".encode(), b"\x80\xff"])
def test_a_header_that_is_not_ascii_is_accepted(tiny_server, name):
    """TorchServe passes every header on to the worker process."""
    head = b"POST /predictions/vinegrape HTTP/1.1\r\nHost: leaf\r\nX-Name: " + name
    with socket.create_connection(("127.0.0.1", tiny_server.ports["rest_port"]), timeout=60) as connection:
        connection.sendall(head + b"\r\nContent-Length: %d\r\n\r\n" % len(IMAGE) + IMAGE)
        response = HTTPResponse(connection)
        response.begin()
        assert (response.status, json.load(response)) == (200, ANSWER)
    assert tiny_server.post(IMAGE).json() == ANSWER


# Other servers and ports


def test_torchserve_reports_its_own_metrics(tiny_server):
    socket = temporary_folder(tiny_server.process) / "metrics.sock"
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket))) as client:
        response = client.get("http://localhost/metrics")
    assert response.status_code == 200
    assert "ts_inference_requests_total" in response.text


def test_two_servers_run_on_one_machine(tiny_server, batching_server):
    assert not set(tiny_server.ports.values()) & set(batching_server.ports.values())
    assert tiny_server.post(IMAGE).json() == batching_server.post(IMAGE).json() == ANSWER
