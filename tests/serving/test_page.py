"""The web page in a real browser, with and without the edge.

`pytest tests/serving/test_page.py --screenshots FOLDER` also writes a picture of each state to a folder.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from tests.conftest import program
from tests.support.images import encode, gradient, solid
from tests.support.server import Live, serving
from tests.support.tiny_archive import BLUE, GREEN, RED
from vinegrape_handler.page import read_page

pytestmark = [pytest.mark.live, pytest.mark.tools, pytest.mark.xdist_group("page")]

KEY = "0123456789abcdef0"
BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@pytest.fixture(scope="module")
def bare(abstaining_archive, tmp_path_factory) -> Iterator[Live]:
    """A model that does not know blue images, served without the edge."""
    program("chromium", "chromium")
    with serving(abstaining_archive, tmp_path_factory.mktemp("page") / "log") as live:
        yield live


@pytest.fixture(scope="module")
def locked(abstaining_archive, tmp_path_factory) -> Iterator[Live]:
    """The same model behind the edge, which requires an API key."""
    program("chromium", "chromium")
    program("haproxy", "haproxy")
    folder = tmp_path_factory.mktemp("locked_page")
    (folder / "keys").write_text(f"grower {KEY}\n")
    with serving(abstaining_archive, folder / "log", edge=True, api_keys=str(folder / "keys")) as live:
        yield live


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=program("chromium", "chromium"), args=["--no-sandbox"])


@dataclass
class Visit:
    """The page in a browser.

    Attributes:
        page: Playwright's page.
        folder: a folder for pictures of its states, if any.
        looks: names of the variant of the page.
    """

    page: Page
    folder: Path | None
    looks: str

    def check(self, name: str) -> None:
        """Check the accessibility of the state, and that nothing needs scrolling to the side. Take its picture."""
        if self.folder:
            self.page.screenshot(path=self.folder / f"{name}-{self.looks}.png")
        report = Axe().run(self.page)
        assert report.violations_count == 0, report.generate_report()
        sizes = self.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert sizes[0] <= sizes[1]

    def send(self, image: bytes, name: str = "leaf.png", type_: str = "image/png") -> None:
        """Choose a file."""
        self.page.set_input_files("#file", {"name": name, "mimeType": type_, "buffer": image})


LOOKS = {
    "narrow-light": {"viewport": {"width": 320, "height": 640}, "has_touch": True, "is_mobile": True},
    "narrow-dark": {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True},
    "wide-light": {"viewport": {"width": 1280, "height": 800}},
    "wide-dark": {"viewport": {"width": 1280, "height": 800}},
}


@pytest.fixture
def visit(browser, request) -> Iterator[Callable[..., Visit]]:
    """Open a page in a variant of `LOOKS`; at the end, check that its script and its security policy agree."""
    contexts, complaints = [], []
    folder = request.config.getoption("--screenshots")

    def note(text: str) -> None:
        # The browser logs each response with an error status too
        if "Failed to load resource" not in text:
            complaints.append(text)

    def open_page(url: str, looks: str = "wide-light", prepare: Callable[[Page], None] | None = None) -> Visit:
        context = browser.new_context(**LOOKS[looks], color_scheme=looks.partition("-")[2], reduced_motion="reduce")
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: note(message.text))
        page.on("pageerror", lambda error: note(str(error)))
        if prepare:
            prepare(page)
        page.goto(url)
        return Visit(page, Path(folder) if folder else None, looks)

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


# Over HTTP


def test_a_browser_gets_the_page_and_a_program_the_description(bare):
    page = httpx.get(bare.url, headers=BROWSER)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.content == read_page().body
    for name, value in read_page().headers.items():
        assert page.headers[name] == value
    description = httpx.get(bare.url, headers={"accept": "application/json"})
    assert description.json()["name"] == "vinegrape"
    assert httpx.get(bare.url).status_code == 400


def test_the_edge_sends_the_page_without_a_key_and_nothing_else(locked):
    head = httpx.head(locked.url, headers=BROWSER)
    page = httpx.get(locked.url.replace("/predictions/vinegrape", "/"), headers=BROWSER, follow_redirects=True)
    assert str(page.url) == locked.url
    assert page.content == read_page().body
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(page.content)))
    for name, value in read_page().headers.items():
        assert page.headers[name] == head.headers[name] == value
    assert not [name for name in page.headers if name.startswith("x-vinegrape")]
    # A GET can have a body, which the worker would classify
    with_body = httpx.request("GET", locked.url, headers=BROWSER, content=solid(RED))
    assert with_body.content == page.content
    assert httpx.get(locked.url, headers={"accept": "application/json"}).status_code == 401
    assert httpx.post(locked.url, headers=BROWSER, content=solid(RED)).status_code == 401


# In a browser


@pytest.mark.parametrize("looks", LOOKS)
def test_a_chosen_photo_is_classified(bare, visit, looks):
    seen = visit(bare.url, looks)
    expect(seen.page.get_by_text("Ala Idris")).to_be_visible()
    expect(seen.page.locator("#model")).to_have_text("vinegrape tiny")
    expect(seen.page.get_by_text("Take a photo")).to_be_visible(visible=looks.startswith("narrow"))
    seen.check("start")
    seen.send(solid(GREEN))
    expect(seen.page.get_by_role("heading", name="Ala Idris")).to_be_visible()
    expect(seen.page.get_by_role("status")).to_have_text("Ala Idris, 75.0%")
    expect(seen.page.get_by_alt_text("Your photo: leaf.png")).to_be_visible()
    rows = seen.page.get_by_role("listitem").filter(visible=True)
    assert rows.all_inner_texts()[0].split("\n") == ["Ala Idris", "75.0%"]
    expect(rows).to_have_count(5)
    expect(seen.page.get_by_text(re.compile(r"^\d+ ms, .* Model vinegrape tiny\.$"))).to_be_visible()
    expect(seen.page.get_by_role("button", name="Show heat map")).to_be_visible()
    seen.check("result")
    seen.page.get_by_role("link", name="vinegrape tiny").click()
    assert json.loads(seen.page.locator("#json").inner_text())["architecture"] == "mean_colour"
    seen.page.get_by_text("The same request").click()
    seen.check("programs")


@pytest.mark.parametrize("looks", ["narrow-dark", "wide-light"])
def test_the_page_says_so_if_the_model_does_not_know_the_image(bare, visit, looks):
    seen = visit(bare.url, looks)
    seen.send(solid(BLUE))
    expect(seen.page.get_by_role("heading", name="Not a vine leaf I know")).to_be_visible()
    expect(seen.page.get_by_text("flat on plain paper")).to_be_visible()
    expect(seen.page.get_by_role("heading", name="Nearest varieties")).to_be_visible()
    expect(seen.page.locator("#bars li").first).to_have_text(re.compile("Buzgulu"))
    expect(seen.page.locator("#bars .best")).to_have_count(0)
    seen.check("unknown")


@pytest.mark.parametrize("looks", ["narrow-dark", "wide-light"])
def test_the_page_asks_for_the_key_of_a_server_that_requires_one(locked, visit, looks):
    seen = visit(locked.url.replace("/predictions/vinegrape", "/"), looks)
    field = seen.page.get_by_label("API key", exact=True)
    expect(field).to_be_focused()
    seen.check("key")
    field.fill("wrong")
    field.press("Enter")
    expect(seen.page.get_by_role("heading", name="This API key is not valid")).to_be_visible()
    field.fill(KEY)
    field.press("Enter")
    expect(field).to_be_hidden()
    expect(seen.page.locator("#model")).to_have_text("vinegrape tiny")
    seen.send(solid(RED))
    expect(seen.page.get_by_role("heading", name="Ak", exact=True)).to_be_visible()
    assert "x-api-key: KEY" in seen.page.locator("#curl").text_content()
    assert seen.page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]


GIVE_FILE = """([bytes, event]) => {
    const data = new DataTransfer();
    if (bytes) data.items.add(new File([new Uint8Array(bytes)], "red.png", {type: "image/png"}));
    const how = {bubbles: true, cancelable: true, dataTransfer: data, clipboardData: data};
    const type = event === "drop" ? DragEvent : ClipboardEvent;
    document.body.dispatchEvent(new type(event, how));
}"""


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_a_photo_can_be_dropped_and_pasted(bare, visit, event):
    seen = visit(bare.url)
    seen.page.evaluate(GIVE_FILE, [None, event])
    expect(seen.page.get_by_role("heading", name="That is not a photo")).to_be_visible()
    seen.page.evaluate(GIVE_FILE, [list(solid(RED)), event])
    expect(seen.page.get_by_role("heading", name="Ak", exact=True)).to_be_visible()


def test_the_page_works_with_the_keyboard(bare, visit):
    seen = visit(bare.url)
    expect(seen.page.get_by_role("link", name="vinegrape tiny")).to_be_visible()
    seen.page.keyboard.press("Tab")
    seen.page.keyboard.press("Tab")
    expect(seen.page.locator("#file")).to_be_focused()
    with seen.page.expect_file_chooser() as chooser:
        seen.page.keyboard.press("Space")
    chooser.value.set_files({"name": "red.png", "mimeType": "image/png", "buffer": solid(RED)})
    expect(seen.page.get_by_role("heading", name="Ak", exact=True)).to_be_visible()
    seen.page.keyboard.press("Tab")
    seen.page.keyboard.press("Enter")
    expect(seen.page.get_by_role("button", name="Hide heat map")).to_be_visible()
    seen.page.keyboard.press("Tab")
    seen.page.keyboard.press("Enter")
    expect(seen.page.get_by_role("button", name="Copy the curl command")).to_be_visible()


# Errors


@pytest.mark.parametrize("looks", ["narrow-light", "wide-dark"])
def test_the_error_of_a_file_that_is_no_photo(bare, visit, looks):
    seen = visit(bare.url, looks)
    seen.send(b"GIF89a no image", "photo.gif", "image/gif")
    expect(seen.page.get_by_role("heading", name="The server cannot read this kind of file")).to_be_visible()
    expect(seen.page.get_by_text("This is a GIF image")).to_be_visible()
    expect(seen.page.locator("#problem")).to_contain_text("On an iPhone, Settings, Camera")
    seen.check("error")
    seen.send(solid(RED))
    expect(seen.page.get_by_role("heading", name="Ak", exact=True)).to_be_visible()


def test_the_error_of_a_damaged_photo(bare, visit):
    seen = visit(bare.url)
    seen.send(solid(RED)[:-30])
    expect(seen.page.get_by_role("heading", name="The photo is damaged")).to_be_visible()


def answering(status: int, body: str = "{}", **headers: str) -> Callable[[Page], None]:
    """Answer each upload of a page in place of the server."""

    def answer(route: Route) -> None:
        if route.request.method == "POST":
            route.fulfill(status=status, body=body, headers=headers)
        else:
            route.continue_()

    return lambda page: page.route("**/predictions/vinegrape", answer)


@pytest.mark.parametrize(
    ("status", "headers", "texts"),
    [
        (413, {}, ["The photo is too large", "Choose a smaller one"]),
        (429, {"retry-after": "7"}, ["The server is busy", "Wait 7 seconds, and try again"]),
        (503, {"retry-after": "1"}, ["The server is not ready", "Try again in 1 second."]),
        (504, {}, ["The server took too long"]),
        (502, {}, ["The server could not classify the photo"]),
    ],
)
def test_the_errors_of_a_server_in_trouble(bare, visit, status, headers, texts):
    error = json.dumps({"error": {"code": status, "type": "a_type", "message": "The reason."}})
    seen = visit(bare.url, prepare=answering(status, error, **headers))
    seen.send(b"no image at all, so the browser cannot convert it")
    for text in [*texts, "The server says: The reason."]:
        expect(seen.page.locator("#problem")).to_contain_text(text)
    expect(seen.page.get_by_role("button", name="Try again")).to_be_visible()


def test_an_error_without_our_body_shows_its_status(bare, visit):
    seen = visit(bare.url, prepare=answering(503, "<h1>no JSON</h1>"))
    seen.send(solid(RED))
    expect(seen.page.get_by_text("The server responded with status 503.")).to_be_visible()


@pytest.mark.parametrize("looks", ["narrow-dark", "wide-light"])
def test_a_server_that_does_not_respond(bare, visit, looks):
    seen = visit(bare.url, looks)
    seen.page.route("**/*", lambda route: route.abort("connectionrefused"))
    seen.send(solid(RED))
    expect(seen.page.get_by_role("heading", name="The server cannot be reached")).to_be_visible()
    seen.check("offline")
    seen.page.unroute_all()
    seen.page.get_by_role("button", name="Try again").click()
    expect(seen.page.get_by_role("heading", name="Ak", exact=True)).to_be_visible()
    seen.page.context.set_offline(True)
    seen.send(solid(RED))
    expect(seen.page.get_by_role("heading", name="This device is offline")).to_be_visible()


def test_a_photo_that_the_browser_cannot_show(bare, visit):
    seen = visit(bare.url)
    seen.send(encode(gradient(), "TIFF"), "photo.tif", "image/tiff")
    expect(seen.page.get_by_text("This browser cannot show this photo")).to_be_visible()
    expect(seen.page.locator("#bars li")).to_have_count(5)


def test_a_photo_that_the_server_refuses_is_sent_as_a_jpeg_if_the_browser_can_read_it(bare, visit):
    """Chromium reads GIF as Safari reads HEIC."""
    seen = visit(bare.url)
    seen.send(encode(gradient(), "GIF"), "photo.gif", "image/gif")
    expect(seen.page.get_by_text("this browser has sent it as a JPEG")).to_be_visible()
    expect(seen.page.locator("#bars li")).to_have_count(5)


# The heat map


def half_red(width: int, height: int) -> bytes:
    """An image that is red in its left half and black in the other one."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = 255
    return encode(Image.fromarray(pixels), "PNG")


PIXELS_OF_MAP = """() => {
    const map = document.getElementById("map"), canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [map.naturalWidth, map.naturalHeight];
    const context = canvas.getContext("2d");
    context.drawImage(map, 0, 0);
    return [canvas.width, canvas.height, [...context.getImageData(0, 0, canvas.width, canvas.height).data]];
}"""


@pytest.mark.parametrize("looks", ["narrow-dark", "wide-light"])
@pytest.mark.parametrize(("width", "height"), [(64, 64), (64, 40)])
def test_the_heat_map_is_shown_over_the_photo_on_request(bare, visit, looks, width, height):
    seen = visit(bare.url, looks)
    sent = []
    seen.page.on("request", lambda request: sent.append(request.url) if "/explanations/" in request.url else None)
    seen.send(half_red(width, height))
    button = seen.page.get_by_role("button", name="Show heat map")
    button.click()
    expect(seen.page.get_by_alt_text("Heat map")).to_be_visible()
    map_width, map_height, values = seen.page.evaluate(PIXELS_OF_MAP)
    assert map_width / map_height == pytest.approx(width / height)  # it covers the photo, and not the margins
    light = np.reshape(values, (map_height, map_width, 4))[..., :3].sum(axis=2)
    assert light[:, : map_width // 4].min() > light[:, -map_width // 4 :].max()
    seen.check(f"heatmap-{height}")
    seen.page.get_by_role("button", name="Hide heat map").click()
    expect(seen.page.get_by_alt_text("Heat map")).to_be_hidden()
    button.click()
    assert len(sent) == 1
    seen.send(solid(BLUE))
    expect(seen.page.get_by_role("heading", name="Not a vine leaf I know")).to_be_visible()
    expect(seen.page.get_by_alt_text("Heat map")).to_be_hidden()
    button.click()
    expect(seen.page.get_by_alt_text("Heat map")).to_be_visible()


def test_there_is_no_button_for_a_model_without_explanations(bare, visit):
    def describe(route: Route) -> None:
        if route.request.headers.get("accept") == "application/json" and route.request.method == "GET":
            response = route.fetch()
            route.fulfill(response=response, json={**response.json(), "explanations": False})
        else:
            route.continue_()

    seen = visit(bare.url, prepare=lambda page: page.route("**/predictions/vinegrape", describe))
    expect(seen.page.locator("#model")).not_to_be_empty()
    seen.send(solid(RED))
    expect(seen.page.get_by_role("heading", name="Ak", exact=True)).to_be_visible()
    expect(seen.page.get_by_role("button", name="heat map")).to_have_count(0)


# The examples for programs


@pytest.mark.parametrize("name", ["curl", "python"])
def test_the_examples_run_as_they_are_copied(bare, visit, tmp_path, name):
    seen = visit(bare.url)
    seen.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    seen.page.get_by_text("The same request").click()
    seen.page.locator(f"[data-copy={name}]").click()
    expect(seen.page.get_by_role("status")).to_have_text("Copied")
    text = seen.page.evaluate("navigator.clipboard.readText()")
    (tmp_path / "leaf.jpg").write_bytes(solid(RED))
    command = ["sh", "-c", text] if name == "curl" else [sys.executable, "-c", text]
    output = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert re.search("[\"']label[\"']: ?[\"']Ak[\"']", output)
