"""Settings of the edge that are refused, and the one truth of codes and types."""

import re
import stat
from pathlib import Path

import pytest

from tests.conftest import program
from tests.server.edge.test_security import make_certificate
from tests.support.archives import plan
from vinegrape_handler import errors
from vinegrape_handler.contract import (
    CALL_ERROR_HEADER,
    CONTENT_TYPE_HEADER,
    DEADLINE_HEADER,
    ERROR_HEADER,
    PATH_HEADER,
    QUEUE_HEADER,
    SELF_CHECK_HEADER,
    TRANSPORT_HEADER,
    VERSION_HEADER,
)
from vinegrape_handler.errors import SettingError
from vinegrape_server.edge import configuration, haproxy

TEXT = configuration._CONFIG.read_text()


def prepare(folder: Path, **settings: object) -> None:
    configuration.prepare(plan(edge=True, **settings), Path(program("haproxy", "haproxy")), folder)


def refusal(folder: Path, **settings: object) -> str:
    """The message with which the settings are refused, which must be one line."""
    with pytest.raises(SettingError) as raised:
        prepare(folder, **settings)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# One truth


def known() -> set[tuple[int, str]]:
    def below(kind: type) -> list[type]:
        return [kind, *(child for sub in kind.__subclasses__() for child in below(sub))]

    return {(kind.status, kind.type) for kind in below(errors.RequestError) if hasattr(kind, "type")}


def test_the_errors_of_haproxy_are_those_of_the_project():
    bodies = set(re.findall(r'"code":(\d+),"type":"(\w+)"', TEXT))
    assert len(bodies) >= 10
    assert {(int(code), type_) for code, type_ in bodies} <= known()
    # The body of HAProxy's 503 is computed
    assert 'iif(503,504)],"type":"%[var(txn.server,0),bool,iif(unavailable,deadline_exceeded)]' in TEXT
    assert {(503, "unavailable"), (504, "deadline_exceeded")} <= known()


def test_every_refusal_of_the_project_is_in_the_configuration():
    refused = {(kind.status, kind.type) for kind in errors.Refused.__subclasses__()}
    assert {type_ for _, type_ in refused} <= set(re.findall(r'"type":"(\w+)"', TEXT))


def test_the_headers_are_those_of_the_contract(tmp_path):
    prepare(tmp_path)
    used = set(re.findall(r"x-vinegrape-[a-z-]*[a-z]", TEXT))
    assert used == {
        CALL_ERROR_HEADER,
        CONTENT_TYPE_HEADER,
        DEADLINE_HEADER,
        ERROR_HEADER,
        PATH_HEADER,
        QUEUE_HEADER,
        SELF_CHECK_HEADER,
        VERSION_HEADER,
        *configuration.probe_headers(tmp_path),
    }
    assert TRANSPORT_HEADER.startswith("x-vinegrape-")  # removed with all others


def test_every_variable_of_the_configuration_is_set_and_every_set_variable_is_used():
    used = set(re.findall(r"VINEGRAPE_EDGE_[A-Z_]+[A-Z]", TEXT.partition("\nglobal\n")[2]))
    assert used == {name for name in configuration.environment(plan(edge=True)) if name.startswith("VINEGRAPE")}


# Values


def test_the_slots_and_the_queue_of_haproxy_are_those_of_the_plan():
    chosen = plan(edge=True, workers=3, batch_size=2)
    values = configuration.environment(chosen)
    assert values["VINEGRAPE_EDGE_SLOTS"] == str(chosen.slots) == "12"
    assert values["VINEGRAPE_EDGE_QUEUE_SIZE"] == str(chosen.settings.queue_size) == "48"


def test_the_address_is_the_one_of_the_settings():
    values = configuration.environment(plan(edge=True, host="0.0.0.0", edge_port=9000))
    assert values["VINEGRAPE_EDGE_ADDRESS"] == "0.0.0.0:9000"
    assert values["VINEGRAPE_EDGE_TORCHSERVE"] == "127.0.0.1:8080"
    assert values["VINEGRAPE_EDGE_GATEWAY"] == "127.0.0.1:7070"


@pytest.mark.tools
def test_haproxy_accepts_the_defaults(tmp_path):
    prepare(tmp_path)
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in tmp_path.iterdir())


# Refused settings

GOOD = "phone 0123456789abcdef"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ("has no key", "NAME KEY")),
        ("# nothing\n", ("has no key",)),
        ("phone", ("line 1", "NAME KEY", "openssl rand")),
        (f"{GOOD} more", ("line 1", "NAME KEY")),
        (f"{GOOD}\nph/one 0123456789abcdefg", ("line 2", "NAME KEY")),
        ("phone short", ("line 1", "16")),
        (f"{GOOD}\nphone 0123456789abcdefg", ("line 2", "name phone again")),
        (f"{GOOD}\nother 0123456789abcdef", ("line 2", "the same key as phone")),
    ],
)
def test_a_file_of_keys_that_is_not_valid(tmp_path, text, words):
    (tmp_path / "keys").write_text(text)
    message = refusal(tmp_path, api_keys=str(tmp_path / "keys"))
    assert all(word in message for word in ("api_keys", str(tmp_path / "keys"), *words))
    assert "0123456789abcdef" not in message


@pytest.mark.parametrize("name", ["api_keys", "tls_certificate"])
def test_a_file_that_cannot_be_read(tmp_path, name):
    assert refusal(tmp_path, **{name: "/no/such"}) == (
        f"{name} is '/no/such', which cannot be read (No such file or directory). Set {name} to a readable file."
    )
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    assert "it is not text" in refusal(tmp_path, **{name: str(tmp_path / "binary")})


def test_a_certificate_that_is_none(tmp_path):
    (tmp_path / "crt").write_text("no certificate")
    assert "do not hold a certificate in PEM format" in refusal(tmp_path, tls_certificate=str(tmp_path / "crt"))


def test_a_key_of_another_certificate(tmp_path):
    certificate, _ = make_certificate(tmp_path, "first")
    _, key = make_certificate(tmp_path, "second")
    message = refusal(tmp_path, tls_certificate=str(certificate), tls_key=str(key))
    assert str(certificate) in message
    assert str(key) in message


def test_a_key_without_a_certificate(tmp_path):
    assert "tls_certificate is empty" in refusal(tmp_path, tls_key="key.pem")


@pytest.mark.parametrize("value", ["10.0.0.0/33", "proxy.example", "10.0.0.0/8;10.1.0.0/16"])
def test_proxies_that_are_no_addresses(tmp_path, value):
    assert f"trusted_proxies contains {value!r}" in refusal(tmp_path, trusted_proxies=f"127.0.0.1,{value}")


@pytest.mark.parametrize("value", ["shop.example", "https://shop.example/", "https://*.shop.example", "*"])
def test_origins_that_are_none(tmp_path, value):
    assert f"cors_origins contains {value!r}" in refusal(tmp_path, cors_origins=f"https://a.example,{value}")


def test_images_that_are_too_large_for_the_edge(tmp_path):
    message = refusal(tmp_path, max_image_bytes=100_000_000)
    assert "max_image_bytes is 100000000" in message
    assert "serve without --edge" in message


# The program


def fake(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    path = folder / "haproxy"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/bin")


@pytest.mark.tools
def test_the_installed_haproxy_is_found():
    assert str(haproxy.find_haproxy()) == program("haproxy", "haproxy")


@pytest.mark.parametrize("version", ["2.6.0", "2.8.3-1", "3.2.4", "10.0"])
def test_newer_versions_are_accepted(tmp_path, monkeypatch, version):
    fake(tmp_path, monkeypatch, f"echo 'HAProxy version {version} 2025/10/03 - https://haproxy.org/'")
    assert haproxy.find_haproxy() == tmp_path / "haproxy"


@pytest.mark.parametrize("script", ["echo 'HA-Proxy version 2.2.9-2 2021/04/15'", "echo hello", "exit 1"])
def test_an_old_or_broken_haproxy_is_refused(tmp_path, monkeypatch, script):
    fake(tmp_path, monkeypatch, script)
    with pytest.raises(SettingError, match=r"haproxy .*apt-get install haproxy.*without --edge"):
        haproxy.find_haproxy()


def test_a_missing_haproxy_is_reported_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SettingError, match=r"no haproxy on PATH\. Install HAProxy 2\.6 or newer"):
        haproxy.find_haproxy()
