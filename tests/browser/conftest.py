"""Fixtures of the browser's tests: one browser, one populated project, and pages that are watched.

They end with this folder, and not with the session: while Playwright runs, Django takes this
thread for one that must not touch the database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from tests.browser import chromium
from tests.browser.routes import Found, Routes, crawl
from tests.browser.site import CLUSTERS, Site
from tests.conftest import CI

if not chromium.lacking():
    from tests.browser.looks import Watch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(__file__.removesuffix("/conftest.py")):
            item.add_marker("browser")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, with the reason, where there is no browser; in CI, fail."""
    if lacking := chromium.lacking():
        pytest.fail(lacking) if CI else pytest.skip(lacking)


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    with chromium.running() as started:
        yield started


@pytest.fixture(scope="package")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A database with its tables and a user: what other sites begin with."""
    site = Site(tmp_path_factory.mktemp("founded"))
    site.found()
    site.close()
    return site.database


@pytest.fixture(scope="package")
def unmanned(tmp_path_factory: pytest.TempPathFactory, founded: Any) -> Iterator[Site]:
    """A project in which something is due from now on, and nobody works."""
    site = Site(tmp_path_factory.mktemp("unmanned"), founded=founded)
    site.neglect()
    with site:
        yield site


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory, founded: Any, unmanned: Site) -> Iterator[Site]:
    """The example project with its clusters, and with something to see on every page."""
    with Site(tmp_path_factory.mktemp("site"), clusters=CLUSTERS, founded=founded) as running:
        running.populate()
        yield running


@pytest.fixture(scope="package")
def found(site: Site) -> Found:
    """Its pages."""
    with requests.Session() as session:
        site.log_in(session)
        return crawl(site.origin, session, Routes(site.routes), site.places)


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Watch]]:
    """``visit(site)``: a watched page of somebody who is logged in there; options: as for a context
    of Playwright. What was found by the test's end fails it."""
    watches: list[Watch] = []

    def make(site: Site, **options: Any) -> Watch:
        context = browser.new_context(base_url=site.origin, **options)
        context.add_cookies(site.cookies())
        context.set_default_timeout(10_000)
        scripts = options.get("java_script_enabled", True)
        watches.append(Watch(context.new_page(), scripts=scripts))
        return watches[-1]

    yield make
    for watch in watches:
        watch.page.context.close()
    findings = [each for watch in watches for each in watch.findings]
    assert not findings, "\n".join(findings)
