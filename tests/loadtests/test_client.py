import base64
import json
import socket

import pytest

from tests.support import stand_in
from vinegrape_loadtests.client import HttpResponse, instances_body, post


def test_a_post_returns_status_and_body():
    with stand_in.stand_in(stand_in.failing) as server:
        assert post(f"{server.url}/predictions/vinegrape", b"image") == HttpResponse(500, b"{}")
        assert server.requests == 1


def test_a_post_ignores_the_environments_proxy(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with stand_in.stand_in(stand_in.correct) as server:
        assert post(server.url, b"image").status == 200


def test_a_post_comes_from_the_address_that_it_is_given():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(TimeoutError):
            post(f"http://127.0.0.1:{silent.getsockname()[1]}/", b"image", timeout_s=0.1, source="127.0.1.9")
        connection, (host, _port) = silent.accept()
        connection.close()
    assert host == "127.0.1.9"


def test_half_a_response_is_an_error():
    with stand_in.stand_in(stand_in.truncated) as server, pytest.raises(OSError, match="incomplete response"):
        post(server.url, b"image")


def test_a_closed_port_is_an_error():
    with pytest.raises(ConnectionRefusedError):
        post("http://127.0.0.1:1/", b"image")


def test_no_response_in_time_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TimeoutError):
        post(f"http://127.0.0.1:{silent.getsockname()[1]}/", b"image", timeout_s=0.1)


def test_instances_are_a_json_list_of_base64():
    body = json.loads(instances_body([b"one", b"two"]))
    assert [base64.b64decode(instance["b64"]) for instance in body["instances"]] == [b"one", b"two"]
