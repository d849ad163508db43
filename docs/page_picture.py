"""Write docs/page.png, the picture of the web page in README.

Run it while `make serve` runs: `.venv/bin/python docs/page_picture.py`. It needs the program chromium.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

DOCS = Path(__file__).parent
URL = "http://127.0.0.1:8080/predictions/vinegrape"


def take_picture(url: str, target: Path) -> None:
    """Classify docs/leaf.png on the page at this address, and write what a browser shows."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 720}, color_scheme="light")
        page.goto(url)
        page.locator("#model").wait_for()
        page.set_input_files("#file", DOCS / "leaf.png")
        page.locator("#bars li").first.wait_for()
        page.screenshot(path=target)


if __name__ == "__main__":
    take_picture(sys.argv[1] if len(sys.argv) > 1 else URL, DOCS / "page.png")
