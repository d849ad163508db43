"""The wire format, without a worker process."""

import socket

import pytest

from tests.support.frontend import batch, body_batch, integer, load_message, sized, wire_request
from vinegrape_server.worker.protocol import LoadRequest, Reader, WireRequest, WireResponse, encode


@pytest.fixture
def connection():
    """Both ends of a connection: the frontend's and the worker's."""
    frontend, worker = socket.socketpair()
    with frontend, worker:
        yield frontend, worker


def test_a_load_request_names_folder_handler_and_gpu(connection, tmp_path):
    frontend, worker = connection
    frontend.sendall(load_message(tmp_path, gpu=3) + load_message(tmp_path))
    reader = Reader(worker)
    assert reader.load_request() == LoadRequest(str(tmp_path), "entry.py", 3)
    assert reader.load_request().gpu is None


def test_batches_follow_each_other(connection):
    frontend, worker = connection
    frontend.sendall(body_batch(b"1", b"22") + batch(wire_request(b"x", {"body": ("", b"3")}, {"Accept": "*/*"})))
    reader = Reader(worker)
    assert [item.inputs["body"] for item in reader.batch()] == [b"1", b"22"]
    assert reader.batch() == [WireRequest(b"x", {"body": {"content-type": ""}, "Accept": "*/*"}, {"body": b"3"})]


def test_a_closed_connection_raises_an_error(connection):
    frontend, worker = connection
    frontend.sendall(body_batch(b"12345")[:-8])
    frontend.close()
    with pytest.raises(ConnectionError, match="The frontend has disconnected"):
        Reader(worker).batch()


def test_another_command_is_an_error(connection):
    frontend, worker = connection
    frontend.sendall(b"I")
    with pytest.raises(ValueError, match="sent the command b'I' instead of b'L'"):
        Reader(worker).load_request()


def test_responses_are_encoded_with_lengths():
    encoded = encode(200, "ok", [WireResponse(b"a", b"body", 404, "Not Found", "text/plain")])
    head = integer(200) + sized(b"ok")
    item = sized(b"a") + sized(b"text/plain") + integer(404) + sized(b"Not Found") + integer(0) + sized(b"body")
    assert encoded == head + item + integer(-1)
    assert encode(500, "ä") == integer(500) + sized("ä".encode()) + integer(-1)
