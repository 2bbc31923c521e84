"""A real browser without a screen, and what it complained of."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from conftest import require
from playwright.sync_api import Browser, Page, sync_playwright

QUIET = [  # a browser that asks nobody else
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]


@contextmanager
def browser() -> Iterator[Browser]:
    """Start Chromium. Where there is none, the test is skipped, or fails as `require` says."""
    program = require("chromium")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=QUIET)
        try:
            yield opened
        finally:
            opened.close()


@dataclass
class Seen:
    """One tab on the page, and all that would be a fault in it."""

    base: str
    tab: Page
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tab.on("console", self._on_console)
        self.tab.on("pageerror", lambda error: self.faults.append(f"script: {error}"))
        self.tab.on("dialog", self._on_dialog)
        self.tab.on("request", self._on_request)

    def _on_console(self, message: Any) -> None:
        if message.type in {"error", "warning"}:
            self.faults.append(f"console: {message.text}")

    def _on_dialog(self, dialog: Any) -> None:
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _on_request(self, request: Any) -> None:
        if not request.url.startswith(f"{self.base}/"):
            self.faults.append(f"asked elsewhere: {request.url}")

    def go(self, address: str) -> None:
        answer = self.tab.goto(f"{self.base}{address}")
        assert answer is not None
        assert answer.status == 200, address

    def follow(self, role: Any, name: str) -> None:
        """Click something that leads to another page, and wait for that."""
        with self.tab.expect_navigation(timeout=0):
            self.tab.get_by_role(role, name=name, exact=True).click()

    def texts(self, selector: str) -> list[str]:
        return [text.strip() for text in self.tab.locator(selector).all_inner_texts()]

    def rows(self, selector: str = "table tbody tr") -> list[list[str]]:
        """The cells of a table."""
        found = self.tab.locator(selector).all()
        return [[cell.strip() for cell in row.locator("td").all_inner_texts()] for row in found]


@contextmanager
def tab(opened: Browser, base: str, **options: Any) -> Iterator[Seen]:
    """Open a tab; at its end nothing may have gone wrong in it."""
    context = opened.new_context(**options)
    try:
        seen = Seen(base, context.new_page())
        yield seen
        assert not seen.faults
    finally:
        context.close()
