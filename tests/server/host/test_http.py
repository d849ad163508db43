import socket
import threading

import pytest

from vinegrape_server.host.http import Address, get, reachable


@pytest.mark.parametrize(("host", "address"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("leaf", "leaf")])
def test_all_addresses_are_reached_through_loopback(host, address):
    assert reachable(host) == address


def test_a_port_without_a_server_raises_an_os_error():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match=r"^\[Errno 111\] Connection refused$"):
            get(Address("127.0.0.1", probe.getsockname()[1]), "/", timeout_s=5)


@pytest.mark.parametrize("sent", [b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"])
def test_an_incomplete_response_raises_an_os_error(sent):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def respond():
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(sent)

        thread = threading.Thread(target=respond, daemon=True)
        thread.start()
        with pytest.raises(OSError, match="incomplete response"):
            get(Address("127.0.0.1", server.getsockname()[1]), "/", timeout_s=30)
        thread.join(30)
