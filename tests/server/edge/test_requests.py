"""What the edge passes on, and what it refuses by the head of a request."""

import json

import pytest

from tests.support.archives import plan
from tests.support.edge import PATH, running_edge
from vinegrape_handler.contract import (
    CONTENT_TYPE_HEADER,
    DEADLINE_HEADER,
    ERROR_HEADER,
    PATH_HEADER,
    SELF_CHECK_HEADER,
    TRANSPORT_HEADER,
)

pytestmark = pytest.mark.tools


def error(response) -> tuple[int, str]:
    """The status of an error response, and the type in its body; checks that the two agree."""
    body = response.json()
    assert list(body) == ["error"]
    assert list(body["error"]) == ["code", "type", "message"]
    assert response.headers["content-type"] == "application/json"
    assert body["error"]["code"] == response.status_code
    return response.status_code, body["error"]["type"]


# What goes on


@pytest.mark.parametrize(
    ("method", "path", "received"),
    [
        ("POST", PATH, "POST"),
        ("PUT", PATH, "POST"),
        ("GET", PATH, "GET"),
        ("GET", f"{PATH}?customized=no", "GET"),
        ("POST", "/v1/models/vinegrape:predict", "POST"),
    ],
)
def test_an_offered_request_reaches_the_prediction_path(edge, method, path, received):
    body = edge.client.request(method, path, content=b"image" if method != "GET" else None).json()
    assert (body["method"], body["path"]) == (received, PATH)
    assert body["bytes"] == (0 if method == "GET" else 5)


MODEL_PATHS = ("/v2/models/vinegrape", "/v2/models/vinegrape/versions/VERSION")


def with_version(path: str) -> str:
    return path.replace("VERSION", plan().archive.metadata.version)


@pytest.mark.parametrize("path", [*(f"{path}/infer" for path in MODEL_PATHS), "/v1/models/vinegrape:predict"])
def test_posted_paths_and_their_queries_reach_the_worker_in_a_header(edge, path):
    body = edge.post(b"image", path=f"{with_version(path)}?top_k=1&a=%20b").json()
    assert (body["method"], body["path"]) == ("POST", PATH)
    assert body["headers"][PATH_HEADER] == f"{with_version(path)}?top_k=1&a=%20b"


@pytest.mark.parametrize("path", ["/v2", *MODEL_PATHS])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_descriptions_of_the_protocols_come_from_the_worker(edge, path, method):
    response = edge.client.request(method, with_version(path))
    assert response.status_code == 200
    received = edge.torchserve.received[-1]
    assert (received["method"], received["path"]) == ("GET", PATH)
    assert received["headers"][PATH_HEADER] == with_version(path)
    assert (response.content == b"") == (method == "HEAD")


READY = {
    "/ping": {"status": "Healthy"},
    "/v1/models/vinegrape": {"name": "vinegrape", "ready": True},
    "/v2/health/ready": {"ready": True},
    **{f"{path}/ready": {"name": "vinegrape", "ready": True} for path in MODEL_PATHS},
}


@pytest.mark.parametrize("path", READY)
def test_every_path_of_readiness_tells_the_truth(edge, path):
    assert edge.client.get(with_version(path)).json() == READY[path]
    head = edge.client.head(with_version(path))
    assert (head.status_code, head.content) == (200, b"")
    edge.operations.ready = False
    try:
        assert error(edge.client.get(with_version(path))) == (503, "unavailable")
    finally:
        edge.operations.ready = True


@pytest.mark.parametrize(
    ("path", "body"), [("/v2/health/live", {"live": True}), ("/v1/models", {"models": ["vinegrape"]})]
)
def test_what_does_not_change_comes_from_the_edge(edge, path, body):
    received = len(edge.torchserve.received)
    assert edge.client.get(path).json() == body
    head = edge.client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert len(edge.torchserve.received) == received


@pytest.mark.parametrize(
    "path",
    [
        "/v2/", "/v2/health", "/v2/models", "/v2/models/other", "/v2/models/vinegrape/versions/other",
        "/v2/models/vinegrape/versions/other/infer", "/v2/models/vinegrape/config", "/v2/repository/index",
    ],
)  # fmt: skip
def test_errors_below_v2_are_texts_as_clients_of_the_protocol_expect_them(edge, path):
    response = edge.client.get(path)
    assert response.status_code == 404
    assert response.json() == {"error": "There is no such path. Send images to /predictions/vinegrape."}


def test_a_method_that_a_path_of_the_protocols_does_not_allow(edge):
    response = edge.client.get("/v2/models/vinegrape/infer")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert response.json() == {"error": "The path allows POST only."}
    response = edge.post(b"image", path="/v2")
    assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_the_path_of_explanations_is_stated_to_the_worker(edge, method):
    path = "/explanations/vinegrape?class=Ak"
    sent = edge.client.request(
        method, path, content=b"image", headers={"accept": "image/png", "explain": "True"}
    ).json()
    assert (sent["method"], sent["path"]) == ("POST", PATH)
    assert (sent["headers"][PATH_HEADER], sent["headers"]["accept"]) == (path, "image/png")
    assert "explain" not in sent["headers"]


def test_the_length_of_the_json_goes_on_for_the_protocol_that_has_it(edge):
    headers = {"Inference-Header-Content-Length": "12"}
    sent = edge.post(b"image", path="/v2/models/vinegrape/infer", headers=headers)
    assert sent.json()["headers"]["inference-header-content-length"] == "12"
    assert "inference-header-content-length" not in edge.post(b"image", headers=headers).json()["headers"]


def test_a_long_query_is_refused(edge):
    assert edge.post(b"image", path=f"{PATH}?{'a' * 1024}").status_code == 200
    assert error(edge.post(b"image", path=f"{PATH}?{'a' * 1025}")) == (400, "bad_request")


def test_a_head_request_has_the_headers_of_a_get_and_no_body(edge):
    raw = edge.exchange(b"HEAD %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % PATH.encode())
    head, _, body = raw.data.partition(b"\r\n\r\n")
    assert raw.status == 200
    assert b"content-type: application/json" in head
    assert body == b""
    assert edge.torchserve.received[-1]["method"] == "GET"


def test_the_body_is_a_byte_stream_and_its_own_type_is_in_our_header(edge):
    headers = edge.post(b"a=1", headers={"content-type": "multipart/form-data; boundary=b"}).json()["headers"]
    assert headers["content-type"] == "application/octet-stream"
    assert headers[CONTENT_TYPE_HEADER] == "multipart/form-data; boundary=b"


def test_a_request_without_a_type_has_none_in_our_header(edge):
    assert CONTENT_TYPE_HEADER not in edge.post(b"image").json()["headers"]


def test_a_client_cannot_set_our_headers(edge):
    ours = {
        CONTENT_TYPE_HEADER: "image/png",
        DEADLINE_HEADER: "1",
        SELF_CHECK_HEADER: "token",
        TRANSPORT_HEADER: "grpc",
        PATH_HEADER: "/v2",
        "X-Vinegrape-Other": "x",
    }
    headers = edge.post(b"image", headers=ours).json()["headers"]
    assert {name for name in headers if name.startswith("x-vinegrape")} == {DEADLINE_HEADER, PATH_HEADER}
    assert headers[PATH_HEADER] == PATH
    assert int(headers[DEADLINE_HEADER]) > 1


def test_only_known_headers_of_a_client_reach_torchserve(edge):
    sent = {"accept": "text/html", "cookie": "a=b", "x-forwarded-for": "1.2.3.4", "user-agent": "x", "foo": "bar"}
    headers = edge.post(b"image", headers=sent).json()["headers"]
    assert headers["accept"] == "text/html"
    assert set(headers) == {
        "host", "accept", "content-length", "content-type", "x-request-id", DEADLINE_HEADER, PATH_HEADER,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("accept", "received"),
    [(None, "application/json"), ("*/*", "application/json"), ("text/html,*/*;q=0.8", "text/html,*/*;q=0.8")],
)
def test_a_get_that_accepts_anything_asks_for_the_description(edge, accept, received):
    request = edge.client.build_request("GET", PATH, headers={"accept": accept or ""})
    if accept is None:
        del request.headers["accept"]
    assert edge.client.send(request).json()["headers"]["accept"] == received


def test_a_chunked_body_arrives_with_its_length(edge):
    body = edge.client.post(PATH, content=iter([b"a" * 1000, b"b" * 500])).json()
    assert body["bytes"] == 1500
    assert body["headers"]["content-length"] == "1500"
    assert "transfer-encoding" not in body["headers"]


def test_the_banner_and_our_headers_are_removed_from_responses(edge):
    headers = edge.post({"headers": {"server": "Netty", ERROR_HEADER: "none"}}).headers
    assert "server" not in headers
    assert not [name for name in headers if name.startswith("x-vinegrape")]


def test_the_request_id_of_the_client_is_kept(edge):
    response = edge.post(b"image", headers={"x-request-id": "order-1_2.3:4"})
    assert response.headers["x-request-id"] == "order-1_2.3:4"
    assert response.json()["headers"]["x-request-id"] == "order-1_2.3:4"


@pytest.mark.parametrize("value", ["", "a b", 'a"b', "x" * 65, "a,b"])
def test_an_unsuitable_request_id_is_replaced(edge, value):
    response = edge.post(b"image", headers={"x-request-id": value})
    assert len(response.headers["x-request-id"]) == 36
    assert response.json()["headers"]["x-request-id"] == response.headers["x-request-id"]


def test_the_traceparent_is_passed_on_if_it_is_valid(edge):
    valid = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert edge.post(b"image", headers={"traceparent": valid}).json()["headers"]["traceparent"] == valid
    assert "traceparent" not in edge.post(b"image", headers={"traceparent": "x"}).json()["headers"]


# What is not offered


@pytest.mark.parametrize(
    "path",
    [
        "/api-description",
        "/invocations",
        "/models/vinegrape/invoke",
        "/explanations/other",
        "/vinegrape/predict",
        "/v1/models/other:explain",
        f"{PATH}/1.0",
        f"{PATH}/",
        "/predictions/other",
        "/predictions//vinegrape",
        "/predictions/./vinegrape",
        "/x/../predictions/vinegrape",
        "/predictions/%76inegrape",
        "/PREDICTIONS/vinegrape",
        "/%2e%2e/predictions/vinegrape",
        "/readyz",
        "/metrics",
    ],
)
def test_every_other_path_is_not_found(edge, path):
    raw = edge.exchange(
        b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx" % path.encode()
    )
    assert raw.status == 404
    assert json.loads(raw.data.partition(b"\r\n\r\n")[2])["error"]["type"] == "not_found"
    assert raw.end == "FIN"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", PATH, "GET, HEAD, POST, PUT"),
        ("PATCH", PATH, "GET, HEAD, POST, PUT"),
        ("OPTIONS", PATH, "GET, HEAD, POST, PUT"),
        ("TRACE", PATH, "GET, HEAD, POST, PUT"),
        ("GET", "/explanations/vinegrape", "POST, PUT"),
        ("GET", "/v1/models/vinegrape:predict", "POST"),
        ("PUT", "/v1/models/vinegrape:explain", "POST"),
        ("POST", "/ping", "GET, HEAD"),
        ("POST", "/", "GET, HEAD"),
    ],
)
def test_another_method_is_refused_with_those_that_are_allowed(edge, method, path, allowed):
    response = edge.client.request(method, path)
    assert error(response) == (405, "method_not_allowed")
    assert response.headers["allow"] == allowed
    assert allowed in response.json()["error"]["message"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_root_leads_to_the_page(edge, method):
    response = edge.client.request(method, "/?from=elsewhere")
    assert (response.status_code, response.headers["location"], response.content) == (302, PATH.lstrip("/"), b"")
    assert edge.line_of(response)["status"] == 302


@pytest.mark.parametrize("version", ["0.9", "1.2", "3.0", "9.9"])
def test_an_unknown_version_of_http_is_refused(edge, version):
    raw = edge.exchange(f"POST {PATH} HTTP/{version}\r\nHost: a\r\nContent-Length: 1\r\n\r\nx".encode())
    assert (raw.status, raw.end) == (400, "FIN")
    assert json.loads(raw.data.partition(b"\r\n\r\n")[2])["error"]["type"] == "bad_request"


def test_ping_says_what_readyz_says(edge):
    response = edge.client.get("/ping")
    assert (response.status_code, response.json()) == (200, {"status": "Healthy"})
    edge.operations.ready = False
    assert error(edge.client.get("/ping")) == (503, "unavailable")
    edge.operations.ready = True
    assert edge.client.get("/ping").status_code == 200


# Errors of TorchServe


@pytest.mark.parametrize("status", [404, 500, 503, 507])
def test_torchserves_own_error_becomes_ours(edge, status):
    response = edge.post({"status": status, "headers": {ERROR_HEADER: ""}, "body": '{"code": 500, "type": "X"}'})
    assert error(response) == (503, "unavailable")
    assert response.headers["retry-after"] == "1"


def test_torchserves_empty_413_becomes_ours(edge):
    assert error(edge.post({"status": 413, "headers": {ERROR_HEADER: ""}, "body": ""})) == (413, "too_large")


@pytest.mark.parametrize("status", [400, 413, 415, 422, 503, 504])
def test_an_error_of_the_handler_is_passed_on(edge, status):
    response = edge.post({"status": status, "headers": {ERROR_HEADER: "broken_image"}, "body": '{"error":1}'})
    assert (response.status_code, response.text) == (status, '{"error":1}')
    assert edge.line_of(response)["error"] == "broken_image"


# Limits


def test_the_head_of_a_request_is_limited(edge):
    assert edge.post(b"image", headers={"foo": "x" * 10_000}).status_code == 200
    assert error(edge.post(b"image", headers={"foo": "x" * 20_000})) == (400, "bad_request")


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "5s", "99999999999", ""])
def test_a_timeout_that_is_not_a_number_of_milliseconds_is_refused(edge, value):
    response = edge.post(b"image", headers={"x-request-timeout-ms": value})
    assert error(response) == (400, "bad_request")
    assert "x-request-timeout-ms" in response.json()["error"]["message"]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """An edge that accepts bodies of 1,500 bytes."""
    with running_edge(tmp_path_factory.mktemp("small"), max_image_bytes=1000) as running:
        yield running


def test_a_body_of_the_limit_passes(small):
    assert small.post(b"x" * 1500).json()["bytes"] == 1500
    assert small.client.post(PATH, content=iter([b"x" * 1500])).json()["bytes"] == 1500


def test_a_larger_body_is_refused_before_it_is_sent(small):
    raw = small.exchange(b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 1501\r\n\r\n" % PATH.encode())
    assert raw.status == 413
    assert raw.end == "FIN"
    assert b"1501 bytes; at most 1500 are accepted" in raw.data


def test_a_larger_chunked_body_is_refused(small):
    assert error(small.client.post(PATH, content=iter([b"x" * 1000, b"x" * 501]))) == (413, "too_large")
