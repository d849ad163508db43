import pytest

from vinegrape_client.options import Options


@pytest.mark.parametrize(
    ("url", "address", "grpc", "tls"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1:8080", False, False),
        ("http://127.0.0.1:8080/", "127.0.0.1:8080", False, False),
        ("https://leaf.example", "leaf.example:443", False, True),
        ("grpc://127.0.0.1:7070", "127.0.0.1:7070", True, False),
        ("grpcs://leaf.example", "leaf.example:443", True, True),
        ("grpc://[::1]:7070", "[::1]:7070", True, False),
    ],
)
def test_the_url_states_protocol_and_address(url, address, grpc, tls):
    options = Options(url)
    assert (options.address, options.is_grpc, options.uses_tls) == (address, grpc, tls)


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:8080", "localhost", "ftp://host", "http://", "http://host:port", "http://user:password@host",
     "http://127.0.0.1:8080/predictions/vinegrape", "http://host?key=1"],
)  # fmt: skip
def test_another_url_is_refused(url):
    with pytest.raises(ValueError, match=r"must be of the form|[Pp]ort"):
        Options(url)


@pytest.mark.parametrize("key", ["line\nfeed", "clé", "tab\t"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(key):
    with pytest.raises(ValueError, match="API key") as raised:
        Options("http://host", api_key=key)
    assert key not in str(raised.value)
    assert "secret" not in repr(Options("http://host", api_key="secret"))


def test_an_authority_without_tls_is_refused():
    with pytest.raises(ValueError, match="https"):
        Options("http://host", ca_file="ca.pem")
