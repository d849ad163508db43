import socket
import threading

import pytest

from vinegrape_server.host.http import get, reachable


@pytest.mark.parametrize(("host", "address"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("leaf", "leaf")])
def test_an_address_under_which_a_port_is_reached(host, address):
    assert reachable(host) == address


def test_a_port_that_nobody_listens_on():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match="refused"):
            get("127.0.0.1", probe.getsockname()[1], "/", timeout_s=5)


@pytest.mark.parametrize("words", [b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"])
def test_half_an_answer_is_none(words):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(words)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(OSError, match="half an answer"):
            get("127.0.0.1", server.getsockname()[1], "/", timeout_s=30)
        thread.join()
