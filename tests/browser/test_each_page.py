"""Every page of ours, whoever added it: found by the registry and by links, and looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import requests

from tests.browser.routes import Found, Routes
from tests.browser.site import Site

pytestmark = pytest.mark.timeout(600)


def test_links_lead_to_every_page_and_none_leads_to_nothing(site: Site, found: Found) -> None:
    unreached = set(site.routes) - set(found.pages) - found.others
    with requests.Session() as session:
        site.log_in(session)
        for route in sorted(unreached):
            # What forms alone send is no page.
            address = Routes.filled(route, found.pages)
            if session.get(site.origin + address, timeout=30).status_code == 405:
                unreached.remove(route)

    assert not unreached
    assert not found.broken


def test_each_page_is_sound(site: Site, found: Found, visit: Callable[..., Any]) -> None:
    watch = visit(site)
    for path in found.pages.values():
        watch.page.goto(path)
        watch.look()


def test_each_page_fits_where_one_reads_from_right_to_left(
    site: Site, found: Found, visit: Callable[..., Any]
) -> None:
    watch = visit(site, locale="ar", viewport={"width": 390, "height": 900})
    for path in found.pages.values():
        watch.page.goto(path)
        if path.startswith("/admin/"):
            assert watch.page.locator("html").get_attribute("dir") == "rtl"
        watch.measure()


def test_each_page_is_there_without_javascript(
    site: Site, found: Found, visit: Callable[..., Any]
) -> None:
    watch = visit(site, java_script_enabled=False)
    for path in found.pages.values():
        watch.page.goto(path)
        assert watch.page.locator("h1").first.inner_text(), path
        watch.measure()
