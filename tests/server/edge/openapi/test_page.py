"""The page of the API, as the edge serves it and as Chromium shows it."""

import re
from html import unescape

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from tests.conftest import program
from tests.support.archives import plan
from vinegrape_server.edge.openapi.document import make_document
from vinegrape_server.edge.openapi.page import POLICY, make_page


@pytest.fixture(scope="module")
def page() -> str:
    return make_page(make_document(plan(edge=True)))


def test_every_path_and_every_schema_is_on_the_page(page):
    document = make_document(plan(edge=True))
    text = unescape(re.sub(r"<[^>]+>", "", page))
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert path in text
            assert operation["summary"].removesuffix(", without the body") in text
    assert all(f'id="schema-{name}"' in page for name in document["components"]["schemas"])


def test_every_link_leads_to_a_part_of_the_page(page):
    names = set(re.findall(r' id="([^"]+)"', page))
    links = re.findall(r'href="([^"]+)"', page)
    assert {link for link in links if link.removeprefix("#") not in names} == {"/openapi.json", "data:,"}


def test_text_of_the_document_is_no_html():
    document = make_document(plan(edge=True))
    document["info"]["title"] = "<script>alert(1)</script>"
    document["components"]["schemas"]["Model"]["description"] = "<img src=x>"
    page = make_page(document)
    assert "<script" not in page
    assert "<img" not in page


@pytest.mark.tools
def test_the_edge_serves_document_and_page(edge):
    described = edge.client.get("/openapi.json")
    assert (described.status_code, described.headers["content-type"]) == (200, "application/json")
    assert described.json() == make_document(plan(edge=True, workers=1))
    shown = edge.client.get("/docs")
    assert (shown.status_code, shown.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert shown.headers["content-security-policy"] == POLICY
    for path in ("/openapi.json", "/docs"):
        head = edge.client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert edge.post(b"x", path).status_code == 405
    assert not edge.torchserve.received or "/docs" not in {request["path"] for request in edge.torchserve.received}


@pytest.mark.tools
@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1200])
def test_chromium_shows_the_page_without_violation(edge, width, colours):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program("chromium", "chromium"), args=["--no-sandbox"])
        # axe-core is a script, which the page's policy does not allow
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=colours, bypass_csp=True)
        page = context.new_page()
        complaints, requests = [], []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(f"http://127.0.0.1:{edge.port}/docs")
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert [url for url in requests if not url.startswith("data:")] == [f"http://127.0.0.1:{edge.port}/docs"]
        assert complaints == []
        browser.close()


@pytest.mark.tools
def test_the_policy_lets_the_style_through(edge):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program("chromium", "chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        complaints = []
        page.on("console", lambda message: complaints.append(message.text))
        page.goto(f"http://127.0.0.1:{edge.port}/docs")
        assert page.locator("h3").first.evaluate("node => getComputedStyle(node).marginBottom") == "8px"
        assert complaints == []
        browser.close()
