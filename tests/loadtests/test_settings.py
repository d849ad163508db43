import dataclasses
from argparse import Namespace

import pytest

from vinegrape_handler.errors import SettingError
from vinegrape_loadtests.settings import LoadSettings, check_host, grpc_address


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arrival_rate": -1.0}, "arrival_rate is -1.0; it must be at least 0"),
        ({"timeout_s": 0.0}, "timeout_s is 0.0; it must be more than 0"),
        ({"max_requests": 0}, "max_requests is 0; it must be at least 1"),
        ({"p95_ms": 0.0}, "p95_ms is 0.0; it must be more than 0"),
        ({"p99_ms": float("nan")}, "p99_ms is nan; it must be a finite number"),
        ({"p95_ms": 300.0, "p99_ms": 200.0}, "p99_ms is 200.0; it must be at least p95_ms, 300.0"),
        ({"p99_ms": 2000.0, "timeout_s": 2.0}, "Raise timeout_s"),
        ({"max_failure_ratio": 1.0}, "max_failure_ratio is 1.0; it must be less than 1"),
        ({"max_refused_ratio": 1.0}, "max_refused_ratio is 1.0; it must be less than 1"),
        ({"max_failure_ratio": -0.1}, "max_failure_ratio is -0.1; it must be at least 0"),
        ({"min_right_answers": 0}, "min_right_answers is 0; it must be at least 1"),
        ({"tolerance": -1.0}, "tolerance is -1.0; it must be at least 0"),
    ],
)
def test_an_invalid_value_is_reported(changes, message):
    with pytest.raises(SettingError, match=message):
        LoadSettings(**changes)


def test_locusts_options_are_read_by_their_names():
    options = Namespace(**(dataclasses.asdict(LoadSettings()) | {"p95_ms": 7.0}), users=3)
    assert LoadSettings.from_options(options) == LoadSettings(p95_ms=7.0)


@pytest.mark.parametrize("host", [None, "", "http://127.0.0.1:8080", "https://vinegrape.example"])
def test_a_url_without_a_path_is_a_valid_host(host):
    check_host(host)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1:7070"),
        ("http://127.0.0.1:8000", "127.0.0.1:8000"),
        ("https://vinegrape.example", "vinegrape.example:443"),
        ("http://vinegrape.example", "vinegrape.example:80"),
    ],
)
def test_grpc_is_on_the_port_of_the_edge_or_on_its_own_beside_port_8080(host, address):
    assert grpc_address(host) == address


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "http://127.0.0.1:8080/"])
def test_an_invalid_host_is_reported(host):
    with pytest.raises(SettingError, match=f"The host is '{host}'; it must be of the form http://"):
        check_host(host)
