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
    assert reader.load_request() == LoadRequest(str(tmp_path), 8, "entry.py", 3)
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


def test_inputs_of_the_same_name_become_a_list(connection):
    frontend, worker = connection
    names = ("data", "note", "data", "data")
    fields = b"".join(sized(name.encode()) + sized(b"") + sized(b"%d" % index) for index, name in enumerate(names))
    frontend.sendall(batch(sized(b"x") + integer(-1) + fields + integer(-1)))
    (request,) = Reader(worker).batch()
    assert request.inputs == {"data": [b"0", b"2", b"3"], "note": b"1"}


def test_only_the_first_64_inputs_of_a_request_are_kept(connection):
    frontend, worker = connection
    many = {f"n{index}": ("", b"") for index in range(10_000)}
    frontend.sendall(batch(wire_request(b"a", many), wire_request(b"b", {"body": ("", b"1")})))
    first, second = Reader(worker).batch()
    assert list(first.inputs) == list(first.headers) == list(many)[:64]
    assert second.inputs == {"body": b"1"}


def test_responses_are_encoded_with_lengths():
    response = WireResponse(b"a", b"body", 404, "Not Found", "text/plain", {"X-A": "1", "X-B": "ä"})
    head = integer(200) + sized(b"ok")
    item = sized(b"a") + sized(b"text/plain") + integer(404) + sized(b"Not Found")
    headers = integer(2) + sized(b"X-A") + sized(b"1") + sized(b"X-B") + sized("ä".encode())
    assert encode(200, "ok", [response]) == head + item + headers + sized(b"body") + integer(-1)
    assert encode(200, "ok", [WireResponse(b"a", b"", 200)])[-16:] == integer(0) * 3 + integer(-1)
    assert encode(500, "ä") == integer(500) + sized("ä".encode()) + integer(-1)
