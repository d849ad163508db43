import base64
import json
import tracemalloc

import pytest

from vinegrape_handler.errors import BadRequest, NoImage, TooLarge
from vinegrape_handler.instances import decode_base64, max_values, parse_json, read_instances

IMAGE = bytes(range(256)) + b"\xfb\xff"  # its base64 has 4 and 6 bits left, and both special characters
TEXT = base64.b64encode(IMAGE).decode()


# JSON


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("type_", [bytes, bytearray])
def test_json_is_utf_8(encoding, type_):
    assert parse_json(type_('{"name": "Büzgülü"}'.encode(encoding)), max_values(32)) == {"name": "Büzgülü"}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"])
def test_another_encoding_is_named(encoding):
    with pytest.raises(BadRequest, match="UTF-8"):
        parse_json('{"ü": []}'.encode(encoding), max_values(32))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "line 1 column 2"),
        (b'{"instances": [', "line 1 column 16"),
        (b"{'instances': []}", "double quotes"),
        (b'{"instances": []} and more', "Extra data"),
        (b'{"a": "\xff"}', "byte 7 is not valid"),
        (b'{"a": ' + b"[" * 3000, "nested too deeply"),
        (b'{"a": ' * 3000, "nested too deeply"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "a number has too many digits"),
        (b'{"instances": [1], "other": 1, "instances": [2]}', 'the key "instances" more than once'),
        (b'{"instances": [{"b64": "AAAA", "b64": "BBBB"}]}', 'the key "b64" more than once'),
    ],
    ids=["open", "cut", "quotes", "more", "no utf-8", "deep list", "deep object", "digits", "key", "key of instance"],
)
def test_invalid_json_is_refused(body, words):
    with pytest.raises(BadRequest, match=words):
        parse_json(body, max_values(32))


def test_a_message_contains_little_of_what_the_client_sent():
    key = b'"' + b"x" * 100_000 + b'"'
    with pytest.raises(BadRequest) as refused:
        parse_json(b"{" + key + b":1," + key + b":2}", max_values(32))
    assert len(str(refused.value)) < 150


def many(item: str, megabytes: int = 30) -> bytes:
    return b'{"instances": [' + item.encode() * (megabytes * 10**6 // len(item)) + b"0]}"


@pytest.mark.parametrize("item", ["[],", "{},", "[[]],", "0,", '"",', "1.5,", '{"a":0},'])
def test_json_with_many_values_is_refused_before_it_takes_memory(item):
    body = many(item)
    tracemalloc.start()
    try:
        with pytest.raises(BadRequest, match=r"The JSON has \d+ values; at most 4200 are accepted"):
            parse_json(body, max_values(32))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_as_many_values_are_accepted_as_instances_with_some_keys_need():
    keys = {"b64": "data:image/png;base64,AAAA", **{f"key{index}": [1, 2.5, None] for index in range(20)}}
    body = json.dumps({"instances": [keys] * 32, "parameters": {"a": [[]] * 100}}).encode()
    assert len(parse_json(body, max_values(32))["instances"]) == 32
    with pytest.raises(BadRequest, match="at most 1100"):
        parse_json(body, max_values(1))


# Instances


def test_instances_keep_their_order_and_errors_take_their_place():
    first, error, last = read_instances({"instances": [{"b64": "AAAA"}, {"b64": "?"}, {"b64": "AQEB"}]}, 3)
    assert (first, last) == (b"\0\0\0", b"\1\1\1")
    assert isinstance(error, BadRequest)


def test_the_number_of_instances_is_limited():
    with pytest.raises(NoImage, match="is empty"):
        read_instances({"instances": []}, 3)
    with pytest.raises(TooLarge, match="4 instances; at most 3"):
        read_instances({"instances": [{}] * 4}, 3)


# Base64


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        "data:image/png;base64," + TEXT,
        "DATA:;charset=utf-8;BASE64," + TEXT,
        base64.encodebytes(IMAGE).decode(),
        base64.encodebytes(IMAGE).decode().replace("\n", "\r\n"),
        "data:image/png;base64," + base64.encodebytes(IMAGE).decode(),
        f" {TEXT}\n",
        base64.urlsafe_b64encode(IMAGE).decode(),
        base64.urlsafe_b64encode(IMAGE).decode().rstrip("="),
        TEXT.rstrip("="),
    ],
    ids=["plain", "url", "URL", "lines", "crlf", "url with lines", "spaces", "url-safe", "url-safe bare", "bare"],
)
def test_base64_as_clients_write_it(text):
    assert decode_base64(text) == IMAGE


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4])
def test_padding_may_be_left_out(size):
    text = base64.b64encode(IMAGE[:size]).decode()
    for padding in range(text.count("=") + 1):
        assert decode_base64(text.rstrip("=") + "=" * padding) == IMAGE[:size]


@pytest.mark.parametrize(
    "text",
    [
        "no base64!", "A", "AAAAA", "ümläut==", "AA==AAAA", "====", "AA===", "AAAA.", "%41AAA", "data:AAAA",
        "data:image/png," + TEXT, "data:image/png;base64", "data:base64," + TEXT, "https://example.org/leaf.png",
    ],
)  # fmt: skip
def test_what_is_not_base64_is_an_error(text):
    with pytest.raises(ValueError, match=r"\w"):
        decode_base64(text)
