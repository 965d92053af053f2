"""A real browser that opens the built site, as files."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

# On Linux CI installs one: there its absence is a failure.
needs_browser = pytest.mark.skipif(
    CHROMIUM is None and ("CI" not in os.environ or sys.platform == "darwin"),
    reason="needs a browser: apt-get install chromium",
)


@contextmanager
def launched() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Watched:
    """A page, and what it asked for and complained of."""

    def __init__(self, browser: Browser, address: str, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page: Page = self.context.new_page()
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("requestfailed", lambda request: self.complaints.append(f"failed: {request.url}"))
        self.page.on("console", lambda said: said.type in ("error", "warning") and self.complaints.append(said.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(address)

    def models(self) -> list[str]:
        return self.page.locator("#board tbody td:nth-child(2) a").all_inner_texts()

    def finish(self) -> None:
        """Nothing was asked of a network, nothing complained of."""
        outside = [url for url in self.asked if not url.startswith(("file:", "data:", "blob:"))]
        self.context.close()
        assert (outside, self.complaints) == ([], [])
