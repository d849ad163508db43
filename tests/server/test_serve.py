"""The parts of `serve_archive` that need no TorchServe. tests/serving covers the rest."""

import re
import socket

import pytest

from tests.support.archives import info
from tests.support.server import PORTS
from vinegrape_handler.errors import SettingError
from vinegrape_loadtests.local.server import free_ports
from vinegrape_server.plan import make_plan
from vinegrape_server.serve import banner, check_ports
from vinegrape_server.settings import ServeSettings


def settings(**values) -> ServeSettings:
    return ServeSettings(**{**free_ports(), **values})


@pytest.mark.parametrize("name", PORTS)
def test_a_taken_port_is_reported_with_the_option_that_changes_it(name):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SettingError) as raised:
            check_ports(settings(edge=True, **{name: port}))
    option = name.replace("_", "-")
    assert str(raised.value) == (
        f"Cannot listen on 127.0.0.1:{port} (Address already in use). Choose another: --{option} PORT"
    )


def test_free_ports_are_accepted():
    check_ports(settings())


def test_an_address_of_another_machine_is_refused():
    with pytest.raises(SettingError) as raised:
        check_ports(settings(host="192.0.2.1"))
    assert re.fullmatch(
        r"Cannot listen on 192\.0\.2\.1:\d+ \(Cannot assign requested address\)\. Choose another: --host HOST",
        str(raised.value),
    )
    with pytest.raises(SettingError, match=r"Choose another: --operations-host HOST"):
        check_ports(settings(operations_host="no.such.host.invalid"))


def test_the_management_port_is_checked_on_loopback_whatever_the_host():
    with socket.socket() as taken:
        taken.bind(("127.0.0.2", 0))
        taken.listen()
        port = taken.getsockname()[1]
        check_ports(settings(host="127.0.0.3", management_port=port))
        with pytest.raises(SettingError, match=rf"Cannot listen on 127\.0\.0\.2:{port}"):
            check_ports(settings(host="127.0.0.2", rest_port=port))


def test_the_banner_fits_on_a_screen_and_shows_addresses_and_commands():
    plan = make_plan(ServeSettings(host="0.0.0.0", rest_port=9080, workers=2), info("onnx_int8"), 0, True)
    text = banner(plan)
    assert len(text.splitlines()) <= 24
    assert max(map(len, text.splitlines())) <= 100
    for part in (
        "vinegrape 0123456789ab: small_cnn, 2 classes",
        "onnx_int8 on CPU, 2 workers, no batching",
        "REST        http://0.0.0.0:9080",
        "gRPC        0.0.0.0:7070",
        "operations  http://127.0.0.1:8083/metrics, /readyz, /livez",
        "In a browser:     http://127.0.0.1:9080/predictions/vinegrape\n",
        "curl -T docs/leaf.png http://127.0.0.1:9080/predictions/vinegrape",
        "--edge (needs HAProxy) adds",
        "Ctrl-C",
    ):
        assert part in text


def test_the_banner_of_an_edge_shows_its_port_only():
    values = {"tls_certificate": "cert.pem", "api_keys": "keys.txt", "workers": 2}
    plan = make_plan(ServeSettings(edge=True, **values), info("onnx_int8"), 0, True)
    text = banner(plan)
    assert "REST, gRPC  https://127.0.0.1:8000\n" in text
    assert "curl -H 'X-Api-Key: KEY' -T docs/leaf.png https://127.0.0.1:8000/predictions/vinegrape" in text
    assert "8080" not in text
    assert "7070" not in text
    assert "--edge" not in text


def test_the_banner_shows_batches():
    plan = make_plan(ServeSettings(workers=1, batch_size=8, max_batch_delay_ms=5), info("onnx_int8"), 0, True)
    assert "1 worker, batches of up to 8 within 5 ms" in banner(plan)
