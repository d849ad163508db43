"""The web page as the response to a request."""

from __future__ import annotations

from vinegrape_handler import page
from vinegrape_handler.protocols.route import Call, Pending, Response, Route, error_response


def read_page(_: Call) -> Pending:
    """Return the request for the page, whatever its body is."""
    html = page.read_page()
    return Pending((), lambda _: Response(html.body, headers=html.headers, content_type=page.CONTENT_TYPE))


# The edge states this path for clients without an API key, which must get the page and never a prediction
ROUTES = {"/": Route(read_page, error_response)}
