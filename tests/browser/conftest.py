"""One whole stack for all tests of the pages, and Chromium. With STILLHOUSE_SCREENSHOTS=FOLDER each page that is checked is
photographed there: light, dark and narrow."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, expect, sync_playwright

from service.client import Client
from service.embedded.stack import Stack, stack
from tests.conftest import own_folder, required_program, reserved_port

WIDE, NARROW = ViewportSize(width=1280, height=900), ViewportSize(width=360, height=740)
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
LIMIT_MS = 60_000


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = required_program("chromium")
    expect.set_options(timeout=LIMIT_MS)
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=path, args=["--no-sandbox"]) as browser:
        yield browser


@pytest.fixture(scope="session")
def running_stack(browser: Browser) -> Iterator[Stack]:
    with own_folder() as folder, reserved_port() as port, stack(folder, port=port, say=lambda text: None) as running:
        yield running


@pytest.fixture(scope="session")
def client(running_stack: Stack) -> Iterator[Client]:
    with Client(running_stack.connection.url, running_stack.connection.api_key) as client:
        yield client


@pytest.fixture(scope="session")
def spec() -> dict[str, object]:
    """A job of some seconds."""
    return {
        "name": "digits <b>small</b>",
        "task": "image-classification",
        "dataset": {"source": "builtin:digits"},
        "teacher": {"architecture": {"name": "small-cnn", "width": 16}, "training": {"epochs": 3}},
        "student": {"architecture": {"name": "small-cnn", "width": 4}},
        "training": {"epochs": 4},
        "evaluation": {"control": True},
    }


@pytest.fixture
def visit(browser: Browser, running_stack: Stack) -> Iterator[Callable[[str | None], Page]]:
    """A page of a person's own browser, signed in by that key, by the admin's, or by none. A page that reports an error, in its
    script or against its policy, fails its test."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def opened(key: str | None = running_stack.connection.api_key) -> Page:
        context = browser.new_context(base_url=running_stack.connection.url, viewport=WIDE, color_scheme="light")
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(LIMIT_MS)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if "Content Security Policy" in said.text else None)
        if key is not None:
            page.goto("/sign-in")
            page.get_by_label("Your API key").fill(key)
            page.get_by_role("button", name="Sign in").click()
            page.wait_for_url("**/")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not complaints


@pytest.fixture(scope="session")
def member_key(client: Client) -> str:
    """Of a user who is no admin."""
    return str(client.create_key(user="ada", role="member").key)


def check(page: Page, name: str) -> None:
    """Holds a page against the rules of WCAG 2.2 AA that a program can check, light and dark; narrow, nothing is cut off."""
    folder = os.environ.get("STILLHOUSE_SCREENSHOTS")

    def photograph(look: str) -> None:
        if folder:
            page.screenshot(path=Path(folder) / f"{name}-{look}.png", full_page=True)

    def hold(options: dict[str, object]) -> None:
        found = Axe().run(page, options=options)
        assert not found.violations_count, f"{name}: {found.generate_report()}"

    hold({"runOnly": RULES})
    photograph("light")
    page.emulate_media(color_scheme="dark")
    hold({"runOnly": {"type": "rule", "values": ["color-contrast"]}})
    photograph("dark")
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(NARROW)
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    photograph("narrow")
    page.set_viewport_size(WIDE)
    assert overflow <= 0, f"{name} is {overflow} pixels too wide for a phone"
