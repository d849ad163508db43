"""The page's file and headers. tests/serving/test_page.py has the page in a browser."""

import base64
import hashlib
import re
from html.parser import HTMLParser

from vinegrape_handler.page import read_page


class Elements(HTMLParser):
    """The elements of a page: their names and attributes, and the text of scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.code: list[tuple[str, str]] = []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.elements and self.cdata_elem:
            self.code.append((self.cdata_elem, data))


def parsed() -> Elements:
    elements = Elements()
    elements.feed(read_page().body.decode())
    return elements


def policy() -> dict[str, list[str]]:
    directives = (part.split() for part in read_page().headers["Content-Security-Policy"].split("; "))
    return {name: values for name, *values in directives}


def test_the_policy_allows_what_the_page_needs_and_no_more():
    rules = policy()
    for name in ("default-src", "form-action", "frame-ancestors", "base-uri"):
        assert rules.pop(name) == ["'none'"]
    assert rules.pop("img-src") == ["blob:", "data:"]
    assert rules.pop("connect-src") == ["'self'"]
    assert set(rules) == {"script-src", "style-src"}


def test_the_policy_has_the_hash_of_the_script_and_of_the_style_as_a_browser_computes_it():
    (_, style), (_, script) = sorted(parsed().code, key=lambda item: item[0] == "script")
    for text, directive in ((style, "style-src"), (script, "script-src")):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert policy()[directive] == [f"'sha256-{digest}'"]


def test_the_page_names_no_other_host_and_needs_no_inline_code():
    body = read_page().body.decode()
    assert set(re.findall(r"[a-z]+://[^\s'\"<>]*", body)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    for tag, attributes in parsed().elements:
        assert "src" not in attributes
        assert not [name for name in attributes if name == "style" or name.startswith("on")], tag


def test_the_page_is_small():
    assert len(read_page().body) < 40_000
