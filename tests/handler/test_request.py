import base64
import json

import pytest

from vinegrape_handler.contract import CONTENT_TYPE_HEADER, TRANSPORT_HEADER
from vinegrape_handler.errors import BadRequest, NoImage, RequestError, TooLarge, UnsupportedFormat
from vinegrape_handler.request import Request, read_request, requests_self_check, transport

IMAGE = b"\x89PNG\r\n\x1a\n and so on"
B64 = base64.b64encode(IMAGE).decode()


def read(row, headers=None, max_instances=32) -> Request:
    return read_request(row, headers or {}, max_instances)


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


@pytest.mark.parametrize("token", ["", "guess", "other"])
def test_a_self_check_needs_the_token(token):
    headers = {"x-vinegrape-self-check": "secret", "content-length": "0"}
    assert requests_self_check(headers, "secret")
    assert not requests_self_check(headers, token)


def test_a_form_field_with_the_name_of_the_header_is_not_the_header():
    assert not requests_self_check({"x-vinegrape-self-check": {"content-type": "text/plain"}}, "secret")


# The headers of the edge and the gateway


def test_the_gateway_states_the_transport():
    assert transport({TRANSPORT_HEADER: "grpc", "body": {"content-type": ""}}) == "grpc"
    for headers in ({}, {"Host": "here"}, {TRANSPORT_HEADER: "rest"}, {TRANSPORT_HEADER: "other"}):
        assert transport(headers) == "rest"


# Forms and other content types, which the edge passes on


def form(*fields: tuple[str, bytes]) -> bytes:
    parts = [f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + data for name, data in fields]
    return b"\r\n".join([*parts, b"--b--\r\n"])


def read_labelled(body: bytes, content_type: str) -> Request:
    return read({"body": body}, {CONTENT_TYPE_HEADER: content_type, "content-type": "application/octet-stream"})


FORM = "multipart/form-data; boundary=b"


@pytest.mark.parametrize("name", ["data", "image", "file"])
@pytest.mark.parametrize("content_type", [FORM, "Multipart/Form-Data;BOUNDARY=b"])
def test_a_form_is_read_if_the_edge_has_passed_it_on(name, content_type):
    body = form(("note", b"a leaf"), (name, IMAGE))
    assert read_labelled(body, content_type) == Request("image", (IMAGE,))


def test_parameters_are_read_from_form_fields():
    expected = Request("image", (IMAGE,), {"top_k": ["2", "3"], "format": ["ü"]})
    fields = (("top_k", b"2"), ("image", IMAGE), ("format", "ü".encode()), ("top_k", b"3"))
    assert read_labelled(form(*fields), FORM) == expected
    assert read({"image": IMAGE, "top_k": [b"2", b"3"], "format": bytearray("ü".encode())}) == expected


def test_a_form_that_the_edge_has_not_passed_on_is_no_form():
    body = form(("image", IMAGE))
    assert read({"body": body}, {"content-type": FORM}) == Request("image", (body,))


def test_json_in_a_form_field():
    assert read_labelled(form(("data", instances({"b64": B64}))), FORM) == Request("instances", (IMAGE,))


@pytest.mark.parametrize("names", [(), ("photo",), ("Image", "note")])
def test_a_form_without_an_image_names_the_fields(names):
    with pytest.raises(NoImage, match="must be data, image or file"):
        read_labelled(form(*[(name, IMAGE) for name in names]), FORM)


@pytest.mark.parametrize("names", [("data", "data"), ("image", "file"), ("data", "note", "body")])
def test_several_images_in_a_form_are_refused(names):
    fields = [(name, IMAGE + bytes([index])) for index, name in enumerate(names)]
    with pytest.raises(BadRequest, match=r"has 2 images, in the fields .*instances"):
        read_labelled(form(*fields), FORM)


@pytest.mark.parametrize("row", [{"data": [IMAGE, IMAGE]}, {"image": IMAGE, "file": bytearray(IMAGE)}])
def test_several_images_in_a_form_that_torchserve_has_parsed_are_refused(row):
    with pytest.raises(BadRequest, match="has 2 images"):
        read(row)


def test_of_two_fields_with_the_same_name_an_empty_one_is_ignored():
    assert read({"data": [b"", IMAGE]}) == Request("image", (IMAGE,))


WRONG_TYPES = ["application/x-www-form-urlencoded", "Application/X-WWW-Form-URLEncoded; charset=utf-8", "text/plain",
               "multipart/form-data", "multipart/mixed; boundary=b", "application/json", "message/http"]  # fmt: skip


@pytest.mark.parametrize("content_type", WRONG_TYPES)
def test_images_and_json_are_recognised_whatever_their_content_type_is(content_type):
    assert read_labelled(IMAGE, content_type) == Request("image", (IMAGE,))
    for start in (b"", b" \n", b"\xef\xbb\xbf"):
        assert read_labelled(start + instances({"b64": B64}), content_type) == Request("instances", (IMAGE,))


def test_a_text_form_names_its_content_type():
    for body in (b"image=%89PNG", b"a leaf", b"[1]"):
        with pytest.raises(BadRequest, match="application/x-www-form-urlencoded"):
            read_labelled(body, "application/x-www-form-urlencoded;charset=utf-8")


@pytest.mark.parametrize("content_type", ["multipart/mixed; boundary=b", "Multipart/Related", "message/http"])
@pytest.mark.parametrize("header", [CONTENT_TYPE_HEADER, "Content-Type"])
def test_other_compound_content_types_are_named(content_type, header):
    with pytest.raises(UnsupportedFormat, match=f"(?i)content type {content_type.split(';')[0]} is not supported"):
        read({"body": b"--b\r\n"}, {header: content_type})


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8", "application/ld+json"])
def test_json_that_is_not_an_object(content_type):
    with pytest.raises(BadRequest, match="neither an image nor JSON"):
        read_labelled(b"[1]", content_type)


def test_a_missing_boundary_is_named():
    with pytest.raises(BadRequest, match="boundary"):
        read_labelled(form(("image", IMAGE)), "multipart/form-data")


def test_an_empty_form_is_an_empty_upload():
    with pytest.raises(NoImage):
        read_labelled(b"", FORM)


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
        {"b64": "abcde"},
        {"b64": "ümläut=="},
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


def test_invalid_json_is_rejected():
    with pytest.raises(BadRequest, match="The JSON cannot be read"):
        read({"body": b"{"})


def test_the_number_of_values_depends_on_the_number_of_instances():
    body = b'{"instances": [' + b"[]," * 2000 + b"0]}"
    with pytest.raises(TooLarge, match="has 2001 instances; at most 32"):
        read({"body": body})
    with pytest.raises(BadRequest, match="4002 values; at most 1100"):
        read({"body": body}, max_instances=1)


def test_unknown_json_keys_are_ignored():
    body = json.dumps({"instances": [{"b64": B64, "more": {"deep": [1, None]}}], "parameters": {"x": [[]]}})
    assert read({"body": body.encode()}).images == (IMAGE,)


@pytest.mark.parametrize("value", ["a text", ["a list"], 7])
def test_a_field_must_be_bytes_or_an_object(value):
    with pytest.raises(BadRequest, match="neither an image nor JSON"):
        read({"data": value})


# Without a body


@pytest.mark.parametrize("accept", ["application/json", "text/html;q=0.9, application/json"])
@pytest.mark.parametrize("name", ["Accept", "accept", "ACCEPT"])
@pytest.mark.parametrize("row", [{}, {"body": b""}, {"body": bytearray()}])
def test_a_get_that_accepts_json_requests_the_description(row, name, accept):
    assert read(row, {name: accept, "content-length": "0"}) == Request("describe")


@pytest.mark.parametrize("accept", ["text/html,*/*;q=0.8", "text/html, application/json;q=0.9"])
@pytest.mark.parametrize("name", ["Accept", "accept"])
def test_a_get_that_prefers_html_requests_the_page(name, accept):
    assert read({}, {name: accept, "content-length": "0"}) == Request("page")


@pytest.mark.parametrize(
    "headers",
    [
        {"Accept": "application/json", "Content-Length": "0"},
        {"Accept": "text/html", "Content-Length": "0"},
        {"Accept": "application/json", "Content-Type": "image/png"},
        {"accept": "application/json", "content-type": "image/png"},
        {"Accept": "*/*"},
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


@pytest.mark.parametrize("row", [{}, {"photo": IMAGE}, {"Data": IMAGE, "note": b"a leaf"}])
@pytest.mark.parametrize("headers", [{}, {TRANSPORT_HEADER: "grpc"}])
def test_a_request_without_a_known_name_says_which_names_there_are(row, headers):
    with pytest.raises(NoImage, match="the form field or the gRPC input data, image or file"):
        read(row, headers)


def test_every_error_is_a_request_error():
    for error in (BadRequest, NoImage, TooLarge, UnsupportedFormat):
        assert issubclass(error, RequestError)
