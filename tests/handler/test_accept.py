import pytest

from vinegrape_handler.accept import preferred

JSON, HTML = "application/json", "text/html"
CHROMIUM = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (JSON, JSON),
        (HTML, HTML),
        (CHROMIUM, HTML),
        ("Text/HTML; charset=utf-8", HTML),
        ("text/html, application/json", HTML),
        ("application/json, text/html", JSON),
        ("text/html;q=0.8, application/json;q=0.9", JSON),
        ("text/html; q=0.5 , application/json ;q=0.4", HTML),
        ("application/json;q=0", None),
        ("application/json;q=x, text/html;q=0.1", HTML),
        ("text/html;q=0.1, text/html", HTML),
        ("*/*", None),
        ("application/*", None),
        ("text/htmlx, application/jsonp", None),
        (",;=,", None),
        ("", None),
    ],
)
def test_the_preferred_media_type(accept, expected):
    assert preferred(accept, (JSON, HTML)) == expected
