import pytest

from vinegrape_handler.errors import BadRequest
from vinegrape_handler.forms import read_form

NAMES = ("data", "image")
IMAGE = b"\x89PNG\r\n--and\r\n--so on\r\n"
TYPE = "multipart/form-data; boundary=b0undary"


def part(name: str, content: bytes, *headers: bytes) -> bytes:
    head = b"\r\n".join([b'Content-Disposition: form-data; name="' + name.encode() + b'"; filename="a.png"', *headers])
    return b"--b0undary\r\n" + head + b"\r\n\r\n" + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--b0undary--\r\n"


def read(body: bytes, content_type: str = TYPE) -> list[tuple[str, bytes]]:
    return read_form(body, content_type, NAMES)


def assert_refused(body: bytes, words: str, content_type: str = TYPE) -> None:
    with pytest.raises(BadRequest, match=words):
        read(body, content_type)


def test_the_named_fields_are_returned_in_their_order():
    body = form(part("note", b"a leaf"), part("image", IMAGE), part("data", b"2"), part("image", b"3"))
    assert read(body) == [("image", IMAGE), ("data", b"2"), ("image", b"3")]


def test_empty_fields_are_left_out():
    """A browser sends an empty field for a file that the user has not chosen."""
    assert read(form(part("data", b""), part("image", IMAGE))) == [("image", IMAGE)]
    assert read(form()) == []


@pytest.mark.parametrize(
    "content_type",
    [
        'multipart/form-data; boundary="b0undary"',
        "Multipart/Form-Data; Boundary=b0undary",
        "MULTIPART/FORM-DATA;charset=utf-8;boundary=b0undary",
        "multipart/form-data ; boundary = b0undary",
    ],
)
def test_content_types_as_clients_write_them(content_type):
    assert read(form(part("image", IMAGE)), content_type) == [("image", IMAGE)]


@pytest.mark.parametrize(
    "headers",
    [
        (b"Content-Type: image/png", b"Content-Transfer-Encoding: binary"),
        (b"content-type: text/plain; charset=ISO-8859-1", b"Content-Length: %d" % len(IMAGE)),
        (b"Content-Type: text/plain; charset=utf8",),
    ],
)
def test_headers_of_a_field_as_clients_write_them(headers):
    assert read(form(part("image", IMAGE, *headers))) == [("image", IMAGE)]


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary=", "multipart/x; b=c"])
def test_a_missing_boundary_is_named(content_type):
    assert_refused(form(part("image", IMAGE)), "without a boundary", content_type)


def test_another_boundary_than_in_the_content_type_is_refused():
    assert_refused(form(part("image", IMAGE)), "Its boundary is 'other'", "multipart/form-data; boundary=other")


@pytest.mark.parametrize("kept", [0, 5, 12, 30, 90, 110, -1, -4, -5])
def test_a_truncated_form_is_refused(kept):
    body = form(part("image", IMAGE)).removesuffix(b"\r\n")
    assert_refused(body[:kept], "The form cannot be read")


@pytest.mark.parametrize(
    "body",
    [
        b"an image",
        form(part("image", IMAGE)).replace(b"\r\n", b"\n"),
        form(b"--b0undary\r\n\r\n1\r\n"),
        form(b"--b0undary\r\nContent-Disposition: attachment\r\n\r\n1\r\n"),
        form(part("image", IMAGE, b"no header")),
        form(part("image", IMAGE, b"X-Name: \xff")),
        form(part("image", IMAGE, b"Content-Length: 3")),
    ],
    ids=["no form", "line feeds", "no name", "attachment", "no colon", "no utf-8", "wrong length"],
)
def test_a_broken_form_is_refused(body):
    assert_refused(body, "The form cannot be read")


@pytest.mark.parametrize("charset", ["nope", "utf-9", "x" * 3000])
def test_an_unknown_charset_is_refused(charset):
    body = form(part("data", IMAGE, f"Content-Type: text/plain; charset={charset}".encode()))
    assert_refused(body, f"the charset '{charset[:80]}.* is unknown")
    assert_refused(form(part("data", IMAGE)), "is unknown", f"{TYPE}; charset={charset}")


def test_an_encoded_field_is_refused():
    assert_refused(form(part("image", b"iVBORw0KGgo=", b"Content-Transfer-Encoding: base64")), "'base64'")


def test_a_form_has_at_most_16_fields():
    assert read(form(*[part("note", b"1")] * 15, part("image", IMAGE))) == [("image", IMAGE)]
    assert_refused(form(*[part("note", b"1")] * 16, part("image", IMAGE)), "A form may have 16 fields")


def test_the_headers_of_a_field_are_limited():
    assert read(form(part("image", IMAGE, b"X-Long: " + b"x" * 4000))) == [("image", IMAGE)]
    assert_refused(form(part("image", IMAGE, b"X-Long: " + b"x" * 4096)), "4096 bytes")
    assert_refused(form(part("image", IMAGE, *[b"X-Many: 1"] * 8)), "8 headers")


def test_a_message_contains_little_of_what_the_client_sent():
    with pytest.raises(BadRequest) as refused:
        read(b"", f"multipart/form-data; boundary={'b' * 5000}")
    assert len(str(refused.value)) < 300
