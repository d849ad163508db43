"""Both clients against a server whose edge uses TLS and requires an API key."""

import pytest

from tests.conftest import program
from tests.server.edge.test_security import make_certificate
from tests.support.server import serving
from vinegrape_client import Retries
from vinegrape_client.errors import ConnectionFailed, Forbidden, Unauthorized, UnsupportedFormat

pytestmark = [pytest.mark.live, pytest.mark.tools, pytest.mark.xdist_group("client_edge")]

KEY = "0123456789abcdef0"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """The paths of a certificate and of its key."""
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def server(tiny_archive, certificate, tmp_path_factory):
    program("haproxy", "haproxy")
    folder = tmp_path_factory.mktemp("client_edge")
    (folder / "keys").write_text(f"orchard {KEY}\n")
    tls = {"tls_certificate": certificate[0], "tls_key": certificate[1]}
    with serving(tiny_archive, folder / "log", edge=True, api_keys=folder / "keys", **tls) as live:
        yield live


@pytest.fixture(params=["https", "grpcs"])
def url(request, server) -> str:
    return f"{request.param}://127.0.0.1:{server.ports['edge_port']}"


def test_a_key_and_an_authority(connect, url, certificate, image):
    with connect(url, api_key=KEY, ca_file=certificate[0]) as client:
        assert client.ready()
        assert client.predict(image).label == "Ak"
        with pytest.raises(UnsupportedFormat) as raised:
            client.predict(b"a text")
        assert raised.value.request_id
        assert [result.error for result in client.predict_many([image] * 20, concurrency=4)] == [None] * 20
        if url.startswith("https"):
            assert client.describe().version == "tiny"


@pytest.mark.parametrize(("key", "error"), [(None, Unauthorized), ("wrong", Forbidden)])
def test_a_missing_and_a_wrong_key(connect, url, certificate, image, key, error):
    with connect(url, api_key=key, ca_file=certificate[0]) as client, pytest.raises(error):
        client.predict(image)


def test_an_unknown_authority_is_not_tried_again(connect, url, image, tmp_path):
    """The certificate is signed by itself, so another certificate is another authority."""
    other, _ = make_certificate(tmp_path)
    delays = []
    with connect(url, api_key=KEY, ca_file=other, sleep=delays.append) as client:
        with pytest.raises(ConnectionFailed) as raised:
            client.predict(image)
        assert (delays, raised.value.can_retry) == ([], False)
        assert not client.ready()


def test_tls_is_required(connect, server, image):
    url = f"http://127.0.0.1:{server.ports['edge_port']}"
    with connect(url, api_key=KEY, retries=Retries(attempts=1)) as client, pytest.raises(ConnectionFailed):
        client.predict(image)
