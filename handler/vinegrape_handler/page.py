"""The web page: `page.html` and the headers that protect it."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

CONTENT_TYPE = "text/html; charset=utf-8"


class Page(NamedTuple):
    """The page, as it is sent.

    Attributes:
        body: HTML in UTF-8. It contains its script and its style, and is the same for every model.
        headers: the headers of its response, by name.
    """

    body: bytes
    headers: Mapping[str, str]


@cache
def read_page() -> Page:
    """Read the page from this package, and compute its headers."""
    body = Path(__file__).with_name("page.html").read_bytes()
    headers = {
        "Content-Security-Policy": _policy(body),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Vary": "Accept",  # the same path has the model's description in JSON
    }
    return Page(body, headers)


def hash_source(content: bytes) -> str:
    """Return the source expression of a content security policy that allows a script or style with this content."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}'"


def _policy(body: bytes) -> str:
    """Return the content security policy: the browser runs only the scripts and styles of this file."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hashes(body, b'script')}",
            f"style-src {_hashes(body, b'style')}",
            "img-src blob: data:",  # the photo, the heat map and the icon
            "connect-src 'self'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        )
    )


def _hashes(body: bytes, element: bytes) -> str:
    """Return the hashes of the content of all elements with this name, as a policy names them."""
    contents = re.findall(b"<%b>(.*?)</%b>" % (element, element), body, re.DOTALL)
    return " ".join(map(hash_source, contents))
