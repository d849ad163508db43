import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from vinegrape_server.host.grpc import check_call
from vinegrape_server.host.http import Address

METHOD = "/vinegrape.Test/Ping"


class Service(grpc.GenericRpcHandler):
    """Answers `METHOD` with an empty message; other methods are not implemented."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, bytes]] = []

    def service(self, details):
        if details.method != METHOD:
            return None

        def answer(message: bytes, _context) -> bytes:
            self.calls.append((details.method, message))
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.fixture
def service():
    service = Service()
    server = grpc.server(ThreadPoolExecutor(1), [service])
    service.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield service
    server.stop(None).wait()


def test_a_server_that_responds_receives_the_call(service):
    check_call(Address("127.0.0.1", service.port), METHOD, timeout_s=30)
    assert service.calls == [(METHOD, b"")]


def test_an_error_is_a_response(service):
    check_call(Address("127.0.0.1", service.port), "/vinegrape.Test/Other", timeout_s=30)
    assert service.calls == []


def test_a_server_that_does_not_listen_does_not_respond():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            check_call(Address("127.0.0.1", probe.getsockname()[1]), METHOD, timeout_s=30)


def test_a_server_that_accepts_and_says_nothing_does_not_respond():
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TimeoutError):
        check_call(Address("127.0.0.1", silent.getsockname()[1]), METHOD, timeout_s=0.2)


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(3) + b"\x04" + bytes(5)])
def test_a_server_that_closes_the_connection_does_not_respond(sent):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def respond():
            connection, _ = server.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(sent)

        thread = threading.Thread(target=respond, daemon=True)
        thread.start()
        with pytest.raises(ConnectionError, match="without a response"):
            check_call(Address("127.0.0.1", server.getsockname()[1]), METHOD, timeout_s=30)
        thread.join(30)
