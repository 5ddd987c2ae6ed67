"""The page “Webhook health” in each of its states, each made by what really happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.site import CLUSTERS, Site

pytestmark = pytest.mark.timeout(240)

#: Seconds that work must be due, with no worker heard of, before that is said.
SILENCE = 90


@pytest.fixture(scope="module")
def young(
    tmp_path_factory: pytest.TempPathFactory, founded: Path, unmanned: Site
) -> Iterator[Site]:
    """A project with clusters, in which nothing has happened."""
    with Site(tmp_path_factory.mktemp("young"), clusters=CLUSTERS, founded=founded) as running:
        yield running


def health(watch: Any) -> Any:
    """The banner of the page, which is looked at besides."""
    watch.page.goto("/admin/webhooks/webhookhealth/")
    watch.look()
    return watch.page.locator(".wh-banner").first


def becomes(watch: Any, word: str) -> Any:
    """Wait for the verdict; the banner that has it."""
    for _ in range(60):
        watch.page.goto("/admin/webhooks/webhookhealth/")
        if watch.page.locator(".wh-headline strong", has_text=word).count():
            break
        watch.page.wait_for_timeout(250)
    return health(watch)


def test_it_goes_from_idle_to_healthy_to_degraded_to_down(
    young: Site, visit: Callable[..., Any]
) -> None:
    watch = visit(young)
    banner = health(watch)
    assert banner.locator("strong").inner_text() == "Idle"
    assert watch.page.get_by_text("Nothing was sent yet").count()

    young.python(f"said = population.traffic('good', {young.good.url!r}, 3)")
    banner = becomes(watch, "Healthy")
    assert banner.locator("strong").inner_text() == "Healthy"
    assert "deliveries are flowing" in banner.inner_text()

    young.python(f"said = population.traffic('failing', {young.failing.url!r}, 2)")
    banner = becomes(watch, "Degraded")
    assert banner.locator("strong").inner_text() == "Degraded"
    banner.get_by_role("link").first.click()  # the reason leads to what it speaks of
    assert "/admin/webhooks/" in watch.page.url
    assert "webhookhealth" not in watch.page.url

    young.python(f"said = population.traffic('down', {young.failing.url!r}, 3, clients=8)")
    banner = becomes(watch, "Down")
    assert banner.locator("strong").inner_text() == "Down"


def test_it_is_down_when_nobody_comes_for_what_is_due(
    unmanned: Site, visit: Callable[..., Any]
) -> None:
    watch = visit(unmanned)
    time.sleep(max(0.0, unmanned.neglected_at + SILENCE + 1 - time.monotonic()))

    banner = health(watch)

    assert banner.locator("strong").inner_text() == "Down"
    assert "Is a worker running?" in banner.inner_text()
    assert not unmanned.good.posts
