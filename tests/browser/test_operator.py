"""What an operator does in the admin, with the pages' scripts and without any."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.site import Site
from tests.world import Answer, until

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def cast(site: Site) -> dict[str, dict[str, str]]:
    return site.cast()


@pytest.fixture(params=["script", "plain"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def at(way: str, site: Site, visit: Callable[..., Any]) -> Operator:
    return Operator(visit(site, java_script_enabled=way == "script"))


@pytest.fixture
def mine(way: str, cast: dict[str, dict[str, str]]) -> dict[str, str]:
    return cast[way]


class Operator:
    """Somebody at a page of the admin."""

    def __init__(self, watch: Any) -> None:
        self.watch = watch
        self.page = watch.page

    def open(self, model: str, pk: str = "", rest: str = "change/") -> None:
        path = f"/admin/{model}/" + (f"{pk.replace('_', '_5F')}/{rest}" if pk else rest)
        self.page.goto(path)

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def follow(self, name: str) -> None:
        self.page.get_by_role("link", name=name, exact=True).first.click()

    def answer(self, question: str, button: str, **chosen: str) -> None:
        """Read a question, look at its page, choose, and do it."""
        self.sees(question)
        for name, value in chosen.items():
            self.page.check(f"[name={name}][value={value}]")
        self.press(button)

    def sees(self, text: str) -> None:
        self.page.locator("#content, .messagelist").get_by_text(text).first.wait_for()

    def sees_at_last(self, text: str) -> None:
        """Look again until it stands there: a worker is at it."""
        shown = self.page.locator("#content").get_by_text(text).first
        for _ in range(60):
            if shown.count() and shown.is_visible():
                return
            self.page.wait_for_timeout(250)
            refresh = self.page.get_by_role("link", name="Refresh", exact=True)
            if refresh.count():
                refresh.click()
            else:
                self.page.reload()
        self.sees(text)

    def state(self, word: str) -> None:
        """What stands under the head of a subscription or delivery."""
        self.page.locator(".wh-page header .wh-chip", has_text=word).first.wait_for()


def test_a_ping_is_answered_beside_its_button(at: Operator, site: Site) -> None:
    for name, said in (("good", r"204 No Content in \d+ ms"), ("failing", r"500 Internal Server")):
        at.open("webhooks/subscription", site.subscriptions[name])
        at.press("Send ping")
        at.page.locator("[role=status]", has_text=re.compile(said)).wait_for()
        at.watch.look(widths=[390])


def test_an_example_is_sent(at: Operator, site: Site) -> None:
    at.open("webhooks/subscription", site.subscriptions["good"])
    before = len(site.good.posts)
    at.page.select_option("select[name=type]", "push.clicked")
    at.press("Send example")
    at.page.locator("[role=status]", has_text="204 No Content").wait_for()

    assert any(post.json["type"] == "push.clicked" for post in site.good.posts[before:])


def test_a_subscription_is_suspended(at: Operator, mine: dict[str, str]) -> None:
    at.open("webhooks/subscription", mine["switched"])
    at.follow("Suspend")
    at.answer("no ping either", "Suspend", on_suspend="discard")
    at.sees("Suspended. New events are discarded.")
    at.state("suspended")


def test_what_waits_is_delivered_on_resume(at: Operator, mine: dict[str, str], site: Site) -> None:
    before = len(site.good.posts)
    at.open("webhooks/subscription", mine["held"])
    at.follow("Resume")
    at.answer("2 are waiting", "Resume", backlog="deliver")
    at.sees("What had waited is delivered")
    at.state("subscribed")
    site.good.wait_for(before + 2)


def test_a_new_secret_is_shown_once(at: Operator, mine: dict[str, str]) -> None:
    at.open("webhooks/subscription", mine["rotated"])
    at.follow("Rotate secret")
    at.page.fill("[name=hours]", "200")
    at.press("Rotate")
    assert at.page.url.endswith("/rotate/")  # refused, by the browser or by the server
    at.page.fill("[name=hours]", "1")
    at.press("Rotate")
    secret = at.page.locator("code", has_text="whsec_").inner_text()
    at.watch.look()
    at.follow("Go on to the subscription")

    at.page.locator("code", has_text=f"…{secret[-4:]}").wait_for()
    assert secret not in at.page.content()


def test_a_subscription_is_ended(at: Operator, mine: dict[str, str]) -> None:
    at.open("webhooks/subscription", mine["ended"])
    at.follow("Unsubscribe")
    at.answer("It cannot be undone", "Unsubscribe")
    at.state("unsubscribed")


def test_a_subscription_is_made(at: Operator, way: str, site: Site) -> None:
    at.open("webhooks/subscription", rest="add/")
    at.page.fill("[name=requester]", f"app:new-{way}")
    at.page.fill("[name=callback_url]", "http://user:secret@127.0.0.1/")
    at.page.fill("[name=event_types]", '["push.*"]')
    at.press("Save")
    at.page.locator(".errornote").wait_for()
    at.watch.look(schemes=["light"])
    at.page.fill("[name=callback_url]", site.good.url)
    at.press("Save")
    at.page.locator("code", has_text="whsec_").wait_for()


def test_the_past_is_replayed_after_a_preview(
    at: Operator, mine: dict[str, str], site: Site
) -> None:
    before = len(site.good.posts)
    at.open("webhooks/subscription", mine["sent"])
    at.follow("Replay")
    at.page.check("[name=states][value=delivered]")
    # To the minute, and this one has not ended.
    at.page.fill("[name=end]", "2099-01-01T00:00")
    at.press("Preview")
    at.sees("Preview: 3 deliveries")
    at.watch.look(schemes=["light"])
    at.press("Replay them")
    at.sees_at_last("3 of 3 deliveries")
    site.good.wait_for(before + 3)
    at.sees_at_last("finished")


def test_a_delivery_is_sent_again(at: Operator, mine: dict[str, str], site: Site) -> None:
    delivery = mine["delivery-sent"]
    before = site.good.ids[mine["event-sent"]]
    at.open("webhooks/delivery", delivery)
    at.follow("Resend")
    at.answer("It is due at once", "Resend")
    at.sees("It is sent again")
    at.sees_at_last("Delivered")

    assert site.good.ids[mine["event-sent"]] == before + 1


def test_a_delivery_is_cancelled(at: Operator, mine: dict[str, str]) -> None:
    at.open("webhooks/delivery", mine["delivery-kept"])
    at.state("pending")
    at.follow("Cancel the delivery")
    at.answer("Nothing more is sent of it", "Cancel the delivery")
    at.sees("It is cancelled.")
    at.state("cancelled")


def test_a_delivery_is_tried_now(at: Operator, mine: dict[str, str], site: Site) -> None:
    delivery = mine["delivery-retried"]
    at.open("webhooks/delivery", delivery)
    before = site.failing.ids[mine["event-retried"]]
    at.follow("Retry now")
    at.answer("It is due at once", "Retry now")
    at.sees("It is due now.")
    at.sees_at_last("500 Internal Server Error")

    assert site.failing.ids[mine["event-retried"]] > before


def test_an_event_is_sent_again_to_all(at: Operator, mine: dict[str, str], site: Site) -> None:
    event = mine["event-sent"]
    before = site.good.ids[event]
    at.open("webhooks/event", event)
    at.follow("Resend to all")
    at.page.locator("[name=states][value=delivered]").check()
    at.page.locator("#content button[type=submit]").click()
    at.page.locator(".messagelist").wait_for()

    until(lambda: site.good.ids[event] == before + 1, what="its arrival")


def test_an_event_is_fanned_out_to_who_came_later(
    at: Operator, mine: dict[str, str], site: Site
) -> None:
    at.open("webhooks/event", mine["early"])
    at.sees("Nobody was sent it.")
    at.follow("Fan out again")
    at.page.locator("#content button[type=submit]").click()
    at.page.locator(".messagelist").wait_for()
    at.sees_at_last("204 No Content")

    assert site.good.ids[mine["early"]] == 1


def test_the_page_says_what_a_receiver_gets_and_who_does_not(
    at: Operator, mine: dict[str, str]
) -> None:
    at.open("webhooks/event", mine["event-sent"])
    at.page.select_option("[name=as]", "mandrill")
    at.press("Show")
    at.page.locator("#receiver pre", has_text="mandrill_events").wait_for()
    at.page.fill("[name=ask]", mine["late"])
    at.press("Ask")
    at.page.locator("#not-sent [role=status]").wait_for()
    at.watch.look(schemes=["light"])


def test_another_period_is_shown(at: Operator) -> None:
    at.open("webhooks/webhookhealth", rest="")
    at.follow("Last hour")
    assert at.page.locator(".wh-range [aria-current]").inner_text() == "Last hour"
    at.page.locator(".wh-range summary").click()
    at.page.fill("[name=from]", "2026-01-02T00:00")
    at.page.fill("[name=to]", "2026-01-01T00:00")
    at.press("Show")
    at.page.locator(".errornote").wait_for()


def test_dead_letters_are_retried_and_discarded(
    at: Operator, mine: dict[str, str], site: Site
) -> None:
    """One by selection, one by discarding it, and what is left as a run with its progress."""
    site.healing.answer = Answer(status=204, body=b"")
    at.page.goto(f"/admin/webhooks/deadletter/?subscription={mine['dead']}")
    at.page.locator("td.wh-n").get_by_role("link", name="3", exact=True).click()
    group = at.page.url
    rows = at.page.locator("input[name=id]")
    assert rows.count() == 3
    before = len(site.healing.posts)
    at.watch.look(schemes=["light"])
    rows.nth(0).check()
    at.press("Retry selected…")
    at.answer("1 dead letter will be sent again", "Retry")
    at.sees("1 of 1: retried.")
    until(lambda: len(site.healing.posts) > before, what="its arrival")

    rows.nth(0).check()
    at.press("Discard selected…")
    at.page.fill("[name=note]", "It is known there already.")
    at.press("Discard")
    at.sees("1 of 1: discarded.")

    at.page.goto(group)
    at.follow("Retry all that match…")
    at.sees("Preview: 1 dead letter")
    at.watch.look(schemes=["light"])
    at.press("Retry all that match")
    at.sees_at_last("1 of 1 dead letters looked at")
    at.watch.look(schemes=["light"])
    at.page.goto(group)
    at.sees("None of these match.")


class TestCampaign:
    def test_it_is_made_and_sent_and_its_page_follows(
        self, at: Operator, way: str, site: Site
    ) -> None:
        at.open("campaigns/campaign", rest="add/")
        at.page.fill("[name=name]", f"Spring, {way}")
        at.page.fill("[name=requester]", "app:good")
        at.page.fill("[name=message]", "It is here.")
        at.press("Save and continue editing")
        at.follow("Send to simulated devices")
        at.page.fill("[name=devices]", "60")
        at.press("Send")
        at.sees("Sending to 60 simulated devices began.")
        at.watch.look(schemes=["light"])
        if way == "script":
            # It renews itself while it runs.
            at.page.get_by_text("Sent to 60 of 60 simulated devices").wait_for(timeout=60_000)
        at.sees_at_last("Sent to 60 of 60 simulated devices")
        at.sees_at_last("pushes recorded")
        at.page.locator(".campaign-glossary summary").click()
        at.watch.look()
        with at.page.expect_download() as download:
            at.follow("Export CSV, by hour")
        assert download.value.suggested_filename.endswith(".csv")

    def test_it_is_cancelled_and_goes_on(self, at: Operator, way: str) -> None:
        at.open("campaigns/campaign", rest="add/")
        at.page.fill("[name=name]", f"Stopped, {way}")
        at.page.fill("[name=requester]", "app:nobody")
        at.page.fill("[name=message]", "Wait.")
        at.press("Save and continue editing")
        at.follow("Send to simulated devices")
        at.page.fill("[name=devices]", "3000")
        at.press("Send")
        at.follow("Cancel sending")
        at.answer("Nothing more is sent", "Cancel sending")
        at.sees("Sending was cancelled.")
        at.follow("Resume sending")
        at.answer("no device is sent to twice", "Resume")
        at.sees("Sending was resumed.")
        at.follow("Cancel sending")
        at.press("Cancel sending")


def test_a_part_renews_itself_until_it_is_paused(site: Site, visit: Callable[..., Any]) -> None:
    at = Operator(visit(site))
    at.page.clock.install()
    at.open("webhooks/webhookhealth", rest="")
    with at.page.expect_response(re.compile("fragment=1")):
        at.page.clock.run_for(15_000)
    at.press("Pause")
    asked: list[str] = []
    at.page.on("request", lambda request: asked.append(request.url))
    at.page.clock.run_for(60_000)
    assert not asked

    at.page.route("**fragment=1**", lambda route: route.fulfill(status=503))
    at.press("Go on")
    at.page.get_by_text("Not renewed").wait_for()
    assert at.page.locator(".wh-banner").count() == 1
    assert any("503" in each for each in at.watch.findings)
    at.watch.findings.clear()


def test_the_keyboard_alone_is_enough(
    site: Site, cast: dict[str, dict[str, str]], visit: Callable[..., Any]
) -> None:
    at = Operator(visit(site))
    at.open("webhooks/subscription", cast["keys"]["switched"])
    for name, word in (("Suspend", "suspended"), ("Resume", "subscribed")):
        tab_to(at.page, name)
        at.page.keyboard.press("Enter")
        at.page.wait_for_url(re.compile(f"/{name.lower()}/$"))
        tab_to(at.page, name)
        at.page.keyboard.press("Space")
        at.page.wait_for_url(re.compile("/change/$"))
        at.state(word)


@pytest.mark.parametrize("name", ["health", "subscription", "delivery", "event", "reasons"])
def test_each_control_has_its_turn_and_shows_it(
    name: str, site: Site, cast: dict[str, dict[str, str]], visit: Callable[..., Any]
) -> None:
    at = Operator(visit(site))
    mine = cast["keys"]
    if name in ("health", "reasons"):
        place = {"health": "webhookhealth/", "reasons": "deliveryattempt/reasons/"}[name]
        at.page.goto(f"/admin/webhooks/{place}")
    else:
        pk = {"subscription": "sent", "delivery": "delivery-sent", "event": "event-sent"}[name]
        at.open(f"webhooks/{name}", mine[pk])
    controls = at.page.evaluate(CONTROLS)
    reached = set()
    at.page.locator(CONTENT).evaluate("each => { each.tabIndex = -1; each.focus(); }")
    for _ in range(controls + 5):
        at.page.keyboard.press("Tab")
        where = at.page.evaluate(FOCUSED)
        if where is None:
            break
        assert where["is_shown"], where["html"]
        reached.add(where["number"])

    assert controls > 2
    assert len(reached) == controls


#: Where a page's own controls are, above the fields of the stock form.
CONTENT = ".wh-page"
#: How many of them somebody can see; each gets a number.
CONTROLS = """() => {
  const all =
    "a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex='0']";
  const shown = [...document.querySelector(".wh-page").querySelectorAll(all)].filter(
    (each) => each.checkVisibility({visibilityProperty: true, contentVisibilityAuto: true}));
  shown.forEach((each, i) => { each.dataset.number = i; });
  return shown.length;
}"""
#: Which one has the focus, and whether it looks otherwise for that; null: none of them.
FOCUSED = """() => {
  const each = document.activeElement;
  if (!each?.dataset.number) return null;
  const look = () => {
    document.getAnimations().forEach((one) => one.finish());
    const style = getComputedStyle(each);
    return [style.outline, style.boxShadow, style.border, style.backgroundColor, style.color,
      style.textDecoration].join();
  };
  const focused = look();
  each.blur();
  const rest = look();
  each.focus({focusVisible: true, preventScroll: true});
  return {number: each.dataset.number, is_shown: focused !== rest, html: each.outerHTML};
}"""


def tab_to(page: Any, name: str) -> None:
    """Press Tab until what has this name is reached."""
    for _ in range(120):
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement.textContent.trim()") == name:
            return
    raise AssertionError(f"Tab does not reach {name}")
