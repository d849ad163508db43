import socket

import pytest
from vinegrape_server.http_get import get, reachable


@pytest.mark.parametrize(("host", "address"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("leaf", "leaf")])
def test_an_address_under_which_a_port_is_reached(host, address):
    assert reachable(host) == address


def test_a_port_that_nobody_listens_on():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match="refused"):
            get("127.0.0.1", probe.getsockname()[1], "/", timeout_s=5)
