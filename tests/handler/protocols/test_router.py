import pytest

from tests.support.protocol_calls import MODEL, read
from vinegrape_handler.contract import PATH_HEADER
from vinegrape_handler.errors import BadRequest, NotFound
from vinegrape_handler.page import read_page
from vinegrape_handler.protocols.router import Router

IMAGE = b"\x89PNG\r\n\x1a\n and so on"


@pytest.mark.parametrize(
    "path", ["", "/predictions/vinegrape", "/v1/models/vinegrape:predict", "/predictions/vinegrape?"]
)
def test_without_a_path_or_with_ours_a_request_is_read_in_our_protocol(path):
    assert read(path, IMAGE).images == (IMAGE,)


def test_a_request_of_the_open_inference_protocol_is_read_in_it():
    response = read("/v2/models/vinegrape/infer", IMAGE)
    assert isinstance(response.body["error"], str)
    assert response.error.status == 400


@pytest.mark.parametrize("path", ["/v2/models/other", "/v2/models/vinegrape/versions/1", "/predictions", "/other"])
def test_another_path_is_not_found(path):
    response = read(path, IMAGE)
    assert isinstance(response.error, NotFound)
    assert response.body["error"]["message"] == f"The path {path!r} is not served."


@pytest.mark.parametrize("image", [IMAGE, b""])
def test_the_root_is_the_page_whatever_the_body_is(image):
    pending = read("/", image)
    assert pending.images == ()
    response = pending.respond([])
    assert (response.body, response.headers) == read_page()
    assert response.content_type == "text/html; charset=utf-8"


def test_the_query_comes_from_the_edge():
    router = Router(MODEL)
    headers = {PATH_HEADER: "/predictions/vinegrape?top_k=1&format=&a=%C3%BC"}
    assert router.call({}, headers).query == {"top_k": ["1"], "format": [""], "a": ["ü"]}
    assert router.call({}, {PATH_HEADER: "/predictions/vinegrape"}).query == router.call({}, {}).query == {}


def test_a_query_with_too_many_parameters_is_refused():
    with pytest.raises(BadRequest, match="query cannot be read"):
        Router(MODEL).call({}, {PATH_HEADER: "/v2?" + "a=1&" * 40})


def test_a_dictionary_of_torchserve_under_the_headers_name_is_no_path():
    router = Router(MODEL)
    assert router.choose({PATH_HEADER: {"content-type": "text/plain"}}) is router.choose({})
