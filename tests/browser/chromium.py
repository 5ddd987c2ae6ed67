"""The browser: the Chromium that is on the PATH, driven by Playwright, which downloads nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

FLAGS = (
    *("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)


def lacking() -> str:
    """What is missing to run it, in a sentence; "": nothing."""
    for module in ("playwright", "axe_playwright_python"):
        if find_spec(module) is None:
            return f"needs the Python package {module}"
    if program() is None:
        return "needs Chromium on the PATH"
    return ""


def program() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def running() -> Iterator[Any]:
    """A Browser of Playwright's, with a profile of its own.

    While it runs, Django takes the thread for one that must not touch the database.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Without a sandbox: as root there is none, and nothing but this machine is opened.
        browser = playwright.chromium.launch(
            executable_path=program(), chromium_sandbox=False, args=list(FLAGS)
        )
        try:
            yield browser
        finally:
            browser.close()
