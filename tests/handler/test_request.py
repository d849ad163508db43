import base64
import json

import pytest

from vinegrape_handler.errors import BadRequest, NoImage, RequestError, TooLarge
from vinegrape_handler.request import Request, read, transport

IMAGE = b"\x89PNG and so on"
B64 = base64.b64encode(IMAGE).decode()


def images(row, headers=None, max_instances=32, self_check=""):
    return read(row, headers or {}, max_instances, self_check)


def instances(*values) -> bytes:
    return json.dumps({"instances": list(values)}).encode()


# One image


@pytest.mark.parametrize("name", ["body", "data", "image", "file"])
@pytest.mark.parametrize("type_", [bytes, bytearray])
def test_an_image_under_every_name(name, type_):
    assert images({name: type_(IMAGE)}) == Request(images=(IMAGE,))


def test_other_form_fields_are_left_alone():
    assert images({"comment": b"a leaf", "image": bytearray(IMAGE), "data": b""}) == Request(images=(IMAGE,))


@pytest.mark.parametrize("body", [b" ", b"\n", b"[]", b"a text", b"\x00{"])
def test_bytes_that_are_no_json_object_are_left_to_the_decoder(body):
    assert images({"body": body}) == Request(images=(body,))


# A self-check


@pytest.mark.parametrize("name", ["X-Vinegrape-Self-Check", "x-vinegrape-self-check"])
def test_a_self_check_is_asked_for_by_a_header(name):
    assert images({}, {name: "secret", "content-length": "0"}, self_check="secret") == Request(self_check=True)
    with pytest.raises(NoImage):
        images({}, {name: "guessed", "content-length": "0"}, self_check="secret")


def test_an_image_is_an_image_whatever_the_headers():
    headers = {"x-vinegrape-self-check": "1"}
    assert images({"body": IMAGE}, headers, self_check="1") == Request(images=(IMAGE,))


def test_how_a_request_came():
    """TorchServe adds an entry for each input, over REST and gRPC alike."""
    assert transport({"body": {"content-type": "image/png"}, "Host": "here"}) == "rest"
    assert transport({"data": {"content-type": ""}}) == "grpc"


# Several


@pytest.mark.parametrize("body", [instances({"b64": B64}), b" \n\t" + instances({"b64": B64})])
def test_instances_as_bytes(body):
    assert images({"body": bytearray(body)}) == Request(images=(IMAGE,), instances=True)


def test_instances_over_grpc():
    assert images({"data": instances({"b64": B64})}) == Request(images=(IMAGE,), instances=True)


def test_instances_that_torchserve_has_parsed():
    assert images({"body": {"instances": [{"b64": B64}]}}) == Request(images=(IMAGE,), instances=True)


def test_instances_keep_their_order():
    parts = [bytes([number]) * 3 for number in range(5)]
    body = instances(*({"b64": base64.b64encode(part).decode()} for part in parts))
    assert images({"body": body}).images == tuple(parts)


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
def test_one_bad_instance_has_its_own_error(instance):
    before, bad, after = images({"body": instances({"b64": B64}, instance, {"b64": B64})}).images
    assert before == after == IMAGE
    assert isinstance(bad, BadRequest)
    assert "base64" in str(bad)


def test_an_empty_instance_is_an_empty_image():
    assert images({"body": instances({"b64": ""})}).images == (b"",)


def test_as_many_instances_as_are_accepted_and_one_more():
    assert len(images({"body": instances(*[{"b64": B64}] * 3)}, max_instances=3).images) == 3
    with pytest.raises(TooLarge, match="has 4 instances; at most 3"):
        images({"body": instances(*[{"b64": B64}] * 4)}, max_instances=3)


def test_an_empty_list():
    with pytest.raises(NoImage, match='"instances" is empty'):
        images({"body": instances()})


@pytest.mark.parametrize("value", [None, 7, "text", {"b64": B64}, True])
def test_instances_that_are_no_list(value):
    with pytest.raises(BadRequest, match='no list "instances"'):
        images({"body": json.dumps({"instances": value}).encode()})


@pytest.mark.parametrize("body", [b"{}", b'{"b64": "AAAA"}', b'{"Instances": []}'])
def test_json_without_instances(body):
    with pytest.raises(BadRequest, match='no list "instances"'):
        images({"body": body})


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
def test_broken_json(body):
    with pytest.raises(BadRequest, match="The JSON cannot be read"):
        images({"body": body})


def test_garbage_beside_the_instances_does_not_hurt():
    body = json.dumps({"instances": [{"b64": B64, "more": {"deep": [1, None]}}], "parameters": {"x": [[]]}})
    assert images({"body": body.encode()}).images == (IMAGE,)


@pytest.mark.parametrize("value", ["a text", ["a list"], 7])
def test_a_field_that_is_neither_bytes_nor_object(value):
    with pytest.raises(BadRequest, match="no image, nor JSON"):
        images({"data": value})


# Without a body


@pytest.mark.parametrize("accept", ["application/json", "text/html, application/json;q=0.9"])
@pytest.mark.parametrize("name", ["Accept", "accept", "ACCEPT"])
@pytest.mark.parametrize("row", [{}, {"body": b""}, {"body": bytearray()}])
def test_a_get_for_json_asks_for_the_description(row, name, accept):
    assert images(row, {name: accept, "content-length": "0"}) == Request(describe=True)


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
def test_an_empty_upload_is_no_image(headers):
    with pytest.raises(NoImage, match="The request carries no image"):
        images({"body": b""}, headers)


def test_a_form_whose_fields_are_all_unknown_is_no_image():
    """TorchServe puts a form field's own headers, a dictionary, among those of the request."""
    with pytest.raises(NoImage):
        images({"photo": IMAGE}, {"photo": {"content-type": "image/png"}, "content-type": "multipart/form-data"})


def test_all_errors_are_of_requests():
    for error in (BadRequest, NoImage, TooLarge):
        assert issubclass(error, RequestError)
