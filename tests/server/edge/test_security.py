"""API keys, TLS and CORS."""

import ssl
import subprocess

import pytest

from tests.conftest import program
from tests.server.edge.test_requests import error
from tests.support.edge import PATH, running_edge
from vinegrape_handler.contract import PATH_HEADER

pytestmark = pytest.mark.tools

KEYS = {"orchard": "0123456789abcdef0", "app.phone-1": "fedcba9876543210f"}


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    """An edge that requires a key."""
    folder = tmp_path_factory.mktemp("locked")
    (folder / "keys").write_text("# clients\n\n" + "".join(f"{name} {key}\n" for name, key in KEYS.items()))
    (folder / "edge").mkdir()
    with running_edge(folder / "edge", api_keys=str(folder / "keys")) as running:
        yield running


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
def test_a_valid_key_is_accepted_and_its_name_is_logged(locked, name, header):
    value = f"Bearer {KEYS[name]}" if header == "authorization" else KEYS[name]
    response = locked.post(b"image", headers={header: value})
    assert response.status_code == 200
    assert header not in response.json()["headers"]
    assert locked.line_of(response)["key"] == name


def test_a_request_without_a_key_is_refused(locked):
    response = locked.post(b"image")
    assert error(response) == (401, "unauthorized")
    assert response.headers["www-authenticate"] == "Bearer"
    assert locked.line_of(response)["key"] == ""


@pytest.mark.parametrize("value", ["wrong", "0123456789abcdef", "0123456789ABCDEF0", "0" * 64, "x" * 3000])
def test_a_wrong_key_is_refused(locked, value):
    assert error(locked.post(b"image", headers={"x-api-key": value})) == (403, "forbidden")
    assert error(locked.post(b"image", headers={"authorization": f"Bearer {value}"})) == (403, "forbidden")


def test_the_header_x_api_key_counts_if_a_platform_uses_authorization(locked):
    headers = {"authorization": "Bearer token-of-the-platform", "x-api-key": KEYS["orchard"]}
    assert locked.line_of(locked.post(b"image", headers=headers))["key"] == "orchard"


@pytest.mark.parametrize(
    "path",
    [
        "/ping",
        "/v1/models",
        "/v1/models/vinegrape",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/vinegrape/ready",
    ],
)
def test_health_needs_no_key(locked, path):
    assert locked.client.get(path).status_code == 200


def test_the_way_to_the_page_needs_no_key(locked):
    assert locked.client.get("/").status_code == 302


HTML = {"accept": "text/html, application/json"}


@pytest.mark.parametrize("keys", [{}, {"x-api-key": "wrong"}])
def test_a_browser_without_a_key_gets_the_page_and_nothing_else(locked, keys):
    """The worker sends the page for the path `/`, whatever the body is."""
    response = locked.client.get(f"{PATH}?top_k=1", headers=HTML | keys)
    assert response.json()["headers"][PATH_HEADER] == "/"
    for method, headers in (("GET", {"accept": "application/json"}), ("GET", {}), ("POST", HTML), ("PUT", HTML)):
        assert locked.client.request(method, PATH, headers=headers | keys).status_code == (403 if keys else 401)
    for path in ("/v2", "/v2/models/vinegrape"):
        assert locked.client.get(path, headers=HTML | keys).status_code == (403 if keys else 401)


def test_a_browser_with_a_key_gets_what_it_prefers(locked):
    headers = {**HTML, "x-api-key": KEYS["orchard"], PATH_HEADER: "/"}
    assert locked.client.get(PATH, headers=headers).json()["headers"][PATH_HEADER] == PATH


def test_an_archive_without_a_page_requires_the_key_of_browsers_too(tmp_path):
    """Its worker would classify the body of a GET."""
    (tmp_path / "keys").write_text(f"orchard {KEYS['orchard']}\n")
    (tmp_path / "edge").mkdir()
    with running_edge(tmp_path / "edge", has_page=False, api_keys=str(tmp_path / "keys")) as running:
        assert error(running.client.get(PATH, headers=HTML)) == (401, "unauthorized")


@pytest.mark.parametrize("path", ["/v2", "/v2/models/vinegrape"])
def test_descriptions_need_a_key(locked, path):
    assert locked.client.get(path).status_code == 401
    assert locked.client.get(path, headers={"x-api-key": KEYS["orchard"]}).status_code == 200


def test_inference_with_the_open_inference_protocol_needs_a_key(locked):
    path = "/v2/models/vinegrape/infer"
    response = locked.post(b"image", path=path)
    assert response.status_code == 401
    assert response.json()["error"].startswith("The request has no API key.")
    assert locked.post(b"image", path=path, headers={"x-api-key": KEYS["orchard"]}).status_code == 200


def test_no_key_is_in_haproxys_files_or_log(locked):
    locked.line_of(locked.post(b"image", headers={"x-api-key": KEYS["orchard"]}))
    texts = [path.read_text() for path in locked.folder.iterdir() if path.is_file()] + [locked.output.getvalue()]
    assert not [key for key in KEYS.values() for text in texts if key in text]


def make_certificate(folder, name="edge"):
    """Write a certificate for 127.0.0.1 and its key; return the paths."""
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    subject = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    command = [program("openssl", "openssl"), "req", "-x509", *kind, *subject, *files]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


def presented(port: int) -> str:
    """The certificate that a server shows, in PEM format."""
    return ssl.get_server_certificate(("127.0.0.1", port)).strip()


def test_tls_with_http1_and_http2(tmp_path):
    certificate, key = make_certificate(tmp_path)
    (tmp_path / "edge").mkdir()
    with running_edge(tmp_path / "edge", tls=True, tls_certificate=str(certificate), tls_key=str(key)) as edge:
        assert edge.post(b"image").status_code == 200
        url = f"https://127.0.0.1:{edge.port}{PATH}"
        done = subprocess.run(
            [program("curl", "curl"), "-sS", "--cacert", certificate, "-d", "image", "-w", "\n%{http_version}", url],
            capture_output=True,
        )
        assert done.stdout.endswith(b"\n2")
        assert (edge.folder / "edge.pem").stat().st_mode & 0o777 == 0o600


# CORS

ORIGIN = "https://shop.example"
PREFLIGHT = {"origin": ORIGIN, "access-control-request-method": "POST", "access-control-request-headers": "x-api-key"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """An edge that allows one page to read its responses."""
    with running_edge(tmp_path_factory.mktemp("shared"), cors_origins=f"{ORIGIN}, http://localhost:3000") as running:
        yield running


@pytest.mark.parametrize("path", [PATH, "/ping", "/v1/models/vinegrape:predict", "/v2/models/vinegrape/infer"])
def test_a_preflight_request(shared, path):
    response = shared.client.options(path, headers=PREFLIGHT)
    assert response.status_code == 204
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in response.headers["access-control-allow-methods"]
    assert "x-api-key" in response.headers["access-control-allow-headers"]
    assert response.headers["vary"] == "origin"
    assert shared.line_of(response)["status"] == 204


@pytest.mark.parametrize("path", [PATH, "/ping", "/nothing"])
def test_responses_and_errors_can_be_read_by_an_allowed_page(shared, path):
    response = shared.client.get(path, headers={"origin": ORIGIN})
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert "retry-after" in response.headers["access-control-expose-headers"]


@pytest.mark.parametrize("origin", ["https://other.example", "https://shop.example.evil", "null"])
def test_another_page_cannot_read_responses(shared, origin):
    for response in (
        shared.post(b"image", headers={"origin": origin}),
        shared.client.options(PATH, headers={**PREFLIGHT, "origin": origin}),
    ):
        assert "access-control-allow-origin" not in response.headers
        assert response.headers["vary"] == "origin"


def test_every_page_can_be_allowed(tmp_path):
    with running_edge(tmp_path, cors_origins="*") as edge:
        assert edge.client.options(PATH, headers=PREFLIGHT).headers["access-control-allow-origin"] == "*"
        response = edge.post(b"image", headers={"origin": "https://any.example"})
        assert response.headers["access-control-allow-origin"] == "*"
        assert "vary" not in response.headers


def test_without_the_setting_no_page_is_allowed(edge):
    assert error(edge.client.options(PATH, headers=PREFLIGHT)) == (405, "method_not_allowed")
    assert "access-control-allow-origin" not in edge.post(b"image", headers={"origin": ORIGIN}).headers
