import base64
import json

import pytest

from vinegrape_handler.errors import BadRequest, NoImage, RequestError, TooLarge
from vinegrape_handler.request import Request, read_request, transport

IMAGE = b"\x89PNG and so on"
B64 = base64.b64encode(IMAGE).decode()


def read(row, headers=None, max_instances=32, self_check_token="") -> Request:
    return read_request(row, headers or {}, max_instances, self_check_token)


def instances(*items) -> bytes:
    return json.dumps({"instances": list(items)}).encode()


# One image


@pytest.mark.parametrize("name", ["body", "data", "image", "file"])
@pytest.mark.parametrize("type_", [bytes, bytearray])
def test_an_image_is_read_from_every_field_name(name, type_):
    assert read({name: type_(IMAGE)}) == Request("image", (IMAGE,))


def test_other_form_fields_are_ignored():
    assert read({"comment": b"a leaf", "image": bytearray(IMAGE), "data": b""}) == Request("image", (IMAGE,))


@pytest.mark.parametrize("body", [b" ", b"\n", b"[]", b"a text", b"\x00{"])
def test_bytes_that_are_not_a_json_object_are_passed_to_the_decoder(body):
    assert read({"body": body}) == Request("image", (body,))


# A self-check


@pytest.mark.parametrize("name", ["X-Vinegrape-Self-Check", "x-vinegrape-self-check"])
def test_a_header_with_the_token_requests_a_self_check(name):
    assert read({}, {name: "secret", "content-length": "0"}, self_check_token="secret") == Request("self_check")
    with pytest.raises(NoImage):
        read({}, {name: "guessed", "content-length": "0"}, self_check_token="secret")


def test_a_request_with_an_image_is_not_a_self_check():
    headers = {"x-vinegrape-self-check": "1"}
    assert read({"body": IMAGE}, headers, self_check_token="1") == Request("image", (IMAGE,))


def test_the_transport_is_recognised_by_the_headers():
    """TorchServe adds a dictionary for each input to the headers of REST and of gRPC."""
    assert transport({"body": {"content-type": "image/png"}, "Host": "here"}) == "rest"
    assert transport({"data": {"content-type": ""}}) == "grpc"


# JSON instances


@pytest.mark.parametrize("body", [instances({"b64": B64}), b" \n\t" + instances({"b64": B64})])
def test_instances_are_read_from_bytes(body):
    assert read({"body": bytearray(body)}) == Request("instances", (IMAGE,))


def test_instances_are_read_over_grpc():
    assert read({"data": instances({"b64": B64})}) == Request("instances", (IMAGE,))


def test_instances_that_torchserve_has_parsed_are_accepted():
    assert read({"body": {"instances": [{"b64": B64}]}}) == Request("instances", (IMAGE,))


def test_instances_keep_their_order():
    parts = [bytes([number]) * 3 for number in range(5)]
    body = instances(*({"b64": base64.b64encode(part).decode()} for part in parts))
    assert read({"body": body}).images == tuple(parts)


@pytest.mark.parametrize(
    "instance",
    [
        {"b64": "no base64!"},
        {"b64": "abc"},
        {"b64": "ümläut=="},
        {"b64": "data:image/png;base64," + B64},
        {"b64": None},
        {"b64": 7},
        {"b64": [B64]},
        {"b64": {"b64": B64}},
        {"image": B64},
        {},
        B64,
        None,
        7,
        [{"b64": B64}],
    ],
)
def test_an_invalid_instance_does_not_affect_its_neighbours(instance):
    before, invalid, after = read({"body": instances({"b64": B64}, instance, {"b64": B64})}).images
    assert before == after == IMAGE
    assert isinstance(invalid, BadRequest)
    assert "base64" in str(invalid)


def test_an_empty_instance_is_an_empty_image():
    assert read({"body": instances({"b64": ""})}).images == (b"",)


def test_one_instance_more_than_the_maximum_is_rejected():
    assert len(read({"body": instances(*[{"b64": B64}] * 3)}, max_instances=3).images) == 3
    with pytest.raises(TooLarge, match="has 4 instances; at most 3"):
        read({"body": instances(*[{"b64": B64}] * 4)}, max_instances=3)


def test_an_empty_list_of_instances_is_rejected():
    with pytest.raises(NoImage, match='"instances" is empty'):
        read({"body": instances()})


@pytest.mark.parametrize("value", [None, 7, "text", {"b64": B64}, True])
def test_instances_must_be_a_list(value):
    with pytest.raises(BadRequest, match='no list "instances"'):
        read({"body": json.dumps({"instances": value}).encode()})


@pytest.mark.parametrize("body", [b"{}", b'{"b64": "AAAA"}', b'{"Instances": []}'])
def test_json_without_instances_is_rejected(body):
    with pytest.raises(BadRequest, match='no list "instances"'):
        read({"body": body})


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"instances": [',
        b"{'instances': []}",
        b'{"instances": []} and more',
        b'{"\xff": 1}',
        b'{"instances": ' + b"[" * 200_000,
        b'{"a": ' * 200_000,
        b'{"instances": ' + b"9" * 10_000 + b"}",
    ],
    ids=["open", "cut", "quotes", "more", "no utf-8", "deep list", "deep object", "long number"],
)
def test_invalid_json_is_rejected(body):
    with pytest.raises(BadRequest, match="The JSON cannot be read"):
        read({"body": body})


def test_unknown_json_keys_are_ignored():
    body = json.dumps({"instances": [{"b64": B64, "more": {"deep": [1, None]}}], "parameters": {"x": [[]]}})
    assert read({"body": body.encode()}).images == (IMAGE,)


@pytest.mark.parametrize("value", ["a text", ["a list"], 7])
def test_a_field_must_be_bytes_or_an_object(value):
    with pytest.raises(BadRequest, match="neither an image nor JSON"):
        read({"data": value})


# Without a body


@pytest.mark.parametrize("accept", ["application/json", "text/html, application/json;q=0.9"])
@pytest.mark.parametrize("name", ["Accept", "accept", "ACCEPT"])
@pytest.mark.parametrize("row", [{}, {"body": b""}, {"body": bytearray()}])
def test_a_get_that_accepts_json_requests_the_description(row, name, accept):
    assert read(row, {name: accept, "content-length": "0"}) == Request("describe")


@pytest.mark.parametrize(
    "headers",
    [
        {"Accept": "application/json", "Content-Length": "0"},
        {"Accept": "application/json", "Content-Type": "image/png"},
        {"accept": "application/json", "content-type": "image/png"},
        {"Accept": "*/*"},
        {"Accept": "text/html"},
        {},
    ],
)
def test_an_empty_upload_is_rejected(headers):
    with pytest.raises(NoImage, match="The request carries no image"):
        read({"body": b""}, headers)


def test_a_form_with_unknown_fields_only_is_rejected():
    """TorchServe adds the headers of a form field, as a dictionary, to those of the request."""
    with pytest.raises(NoImage):
        read({"photo": IMAGE}, {"photo": {"content-type": "image/png"}, "content-type": "multipart/form-data"})


def test_every_error_is_a_request_error():
    for error in (BadRequest, NoImage, TooLarge):
        assert issubclass(error, RequestError)
