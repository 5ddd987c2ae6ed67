"""The push dashboard in the admin. Run by ``test_campaigns.py``, under the example's settings."""

from __future__ import annotations

import csv
import re
from datetime import timedelta
from html import unescape

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from example_project.campaigns import counting
from example_project.campaigns.models import Campaign, CampaignStats, Simulation
from example_project.campaigns.provider import Rates
from tests.example.world import deliver, draft, sent, staff, subscriber, text_of, url_of
from webhooks.models import DeliveryStats, Event
from webhooks.models.stats import Tally

pytestmark = pytest.mark.django_db

OFTEN = Rates(delivered=0.8, opened=0.9, clicked=0.8, again=0.7, unsubscribed=0.2)
NOTHING = "\N{EN DASH}"
ACTIONS = ("simulate", "cancel", "resume")


def page(client: Client, campaign: Campaign, **query: str) -> str:
    response = client.get(url_of("change", campaign.pk), query)
    assert response.status_code == 200
    return unescape(response.content.decode())


def statements(client: Client, url: str) -> int:
    with CaptureQueriesContext(connection) as queries:
        assert client.get(url).status_code == 200
    return len(queries)


def rolled(campaign: Campaign, **counts: int) -> None:
    """Figures as large as one likes, without the pushes."""
    CampaignStats.objects.add(campaign.pk, timezone.now(), 0, **counts)


# The list


def test_the_list_shows_each_campaign_with_its_figures():
    campaign, running = sent(20), draft("Another one")
    deliver(subscriber(), "pending", type="push.sent")
    counting.count(campaign)
    rolled(campaign, sent=12_980, delivered=12_200, opened_unique=3_100, clicked_unique=310)
    Campaign.objects.filter(pk=running.pk).update(state="running", audience=5)
    html = staff().get(url_of("changelist")).content.decode()
    rows = [text_of(row) for row in re.findall(r"<tr>.*?</tr>", html, re.S)]
    totals = CampaignStats.objects.totals([campaign.pk])[campaign.pk]
    [line] = [row for row in rows if "Autumn sale" in row]
    assert "● finished 20 13,000 " in line
    for share in (
        totals.delivered / totals.sent,
        totals.opened_unique / totals.delivered,
        totals.clicked_unique / totals.opened_unique,
    ):
        assert f" {int(share * 1000) / 10:.1f} %" in line
    assert f" {totals.unsubscribed} {totals.failed} 20 " in line
    [line] = [row for row in rows if "Another one" in row]
    assert f"◌ running 5 0 {NOTHING} {NOTHING} {NOTHING} 0 0 0" in line


def test_the_list_costs_the_same_for_one_campaign_and_for_thirty():
    client = staff()
    counting.count(sent(3))
    deliver(subscriber(), "pending")
    client.get(url_of("changelist"))  # what is looked up once for each process
    one = statements(client, url_of("changelist"))
    for i in range(29):
        counting.count(sent(2, f"Campaign {i}"))
    assert statements(client, url_of("changelist")) == one


# The page


def test_the_funnel_says_what_its_rates_are_of():
    campaign = draft()
    rolled(campaign, sent=13_000, delivered=12_284, opened=4_000, opened_unique=3_120)
    rolled(campaign, clicked=500, clicked_unique=312, unsubscribed=61, failed=716)
    html = page(staff(), campaign)
    for said in (
        "Sent: 13,000",
        "Delivered: 12,284 — 94.4 % of sent",
        "Opened: 3,120 — 25.3 % of delivered",
        "Clicked: 312 — 10.0 % of opened",
    ):
        assert said in html
    text = text_of(html)
    assert "Unsubscribed 61 — 0.4 % of delivered" in text
    assert "Opened 3,120 4,000 25.3 % of delivered" in text
    assert "Clicked 312 500 10.0 % of opened" in text
    assert "Failed 716 716 5.5 % of sent" in text


def test_the_charts_have_a_point_for_each_hour_and_day():
    campaign = draft()
    start = timezone.now().replace(hour=22, minute=30)
    for hours, count in ((0, 1), (3, 2), (27, 4)):
        at = start + timedelta(hours=hours)
        CampaignStats.objects.add(campaign.pk, at, 0, sent=count)
    html = page(staff(), campaign)
    by_hour, by_day = (
        re.findall(r'<th scope="row">[^<]*</th><td>(\d*)</td>', figure)
        for figure in re.findall(r"Steps by (?:hour|day)</span>.*?</table>", html, re.S)
    )
    assert [by_hour[0], by_hour[1], by_hour[3], by_hour[-1], len(by_hour)] == [
        "1",
        "0",
        "2",
        "4",
        28,
    ]
    assert by_day == ["1", "2", "4"]


def test_it_ties_out_and_says_so():
    campaign = sent(30, rates=OFTEN)
    text = text_of(page(staff(), campaign))
    assert "Not counted yet." in text
    counting.count(campaign)
    events = Event.objects.count()
    assert f"Events emitted {events} = pushes recorded {events} ✓" in text_of(
        page(staff(), campaign)
    )


def test_it_says_where_it_does_not_tie_out_and_what_to_do():
    campaign = sent(30)
    Event.objects.filter(type="push.sent")[0].delete()
    counting.count(campaign)
    text = text_of(page(staff(), campaign))
    events = Event.objects.count()
    assert f"Events emitted {events} ≠ pushes recorded {events + 1} ✗" in text
    assert "push.sent: 29 events, 30 steps (-1)" in text
    assert f"manage.py campaign_check {campaign.pk}" in text


def test_what_is_too_many_of_one_type_does_not_hide_what_is_missing_of_another():
    campaign = sent(30)
    Event.objects.filter(type="push.sent")[0].delete()
    event = Event.objects.filter(type="push.sent")[0]
    Event.objects.create(type="push.delivered", subject=event.subject, data="{}")
    counting.count(campaign)
    text = text_of(page(staff(), campaign))
    assert "✗" in text
    assert "push.delivered:" in text
    assert "(+1)" in text


def test_each_subscriber_is_told_with_what_it_got():
    campaign = sent(20)
    subscription, digest = subscriber(), subscriber("push.sent", trigger="hourly")
    deliver(subscription, type="push.sent")
    deliver(digest, "pending", type="push.sent")
    counting.count(campaign)
    now = timezone.now()
    tally = Tally()
    for i in range(100):
        tally.count(
            subscription_id=subscription.pk,
            event_type="push.sent",
            at=now,
            code="",
            elapsed_ms=5,
            first_try=True,
            dead=False,
            ack_ms=3000 if i < 90 else 200_000,
        )
    DeliveryStats.objects.add(tally)
    html = page(staff(), campaign)
    rows = re.findall(r"<tr><th scope=\"row\"><a href=\"([^\"]*)\">(.*?)</tr>", html, re.S)
    told = {url: text_of(">" + row) for url, row in rows}
    address = reverse(
        "admin:webhooks_subscription_change", args=[subscription.pk.replace("_", "_5F")]
    )
    assert "push.sent ● 20 / 20 0 0 0 3 min" in told[address].replace("\N{NO-BREAK SPACE}", " ")
    other = reverse("admin:webhooks_subscription_change", args=[digest.pk.replace("_", "_5F")])
    assert f"digest: hourly push.sent 0 / 20 20 0 0 {NOTHING}" in told[other]


def test_the_page_costs_the_same_for_one_subscriber_and_for_many():
    client = staff()
    campaign = sent(10)
    deliver(subscriber())
    counting.count(campaign)
    client.get(url_of("change", campaign.pk))
    one = statements(client, url_of("change", campaign.pk))
    for _ in range(10):
        deliver(subscriber())
    counting.count(campaign)
    assert statements(client, url_of("change", campaign.pk)) == one


def test_the_part_that_renews_itself_comes_alone():
    campaign = sent(3)
    html = page(staff(), campaign, fragment="1")
    assert "<html" not in html
    assert "Webhook deliveries of these events" in html
    assert 'class="wh-live"' in page(staff(), campaign)


def test_a_campaign_that_runs_is_looked_at_more_often():
    campaign = sent(3)
    assert 'data-seconds="15"' in page(staff(), campaign)
    Campaign.objects.update(state=Campaign.State.RUNNING)
    assert 'data-seconds="3"' in page(staff(), campaign)


def test_the_pages_need_no_inline_script_or_style():
    campaign = sent(3)
    counting.count(campaign)
    client = staff()
    for html in (
        page(client, campaign),
        page(client, draft()),
        client.get(url_of("changelist")).content.decode(),
        client.get(url_of("simulate", campaign.pk)).content.decode(),
    ):
        assert not re.search(r"<script(?![^>]* src=)(?![^>]*type=\"application/json\")", html)
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=\"", html)


def test_an_unknown_campaign_is_not_found():
    client = staff()
    for pk in (4711, "x", "9" * 30):
        assert client.get(url_of("change", pk)).status_code in (302, 404)
        assert client.get(url_of("change", pk), {"fragment": "1"}).status_code == 404


# Who may


def test_without_permission_nothing_is_shown_or_done():
    campaign = draft()
    stranger = staff("webhooks.view_event")
    assert url_of("changelist") not in stranger.get(reverse("admin:index")).content.decode()
    for url in (
        *(url_of("changelist"), url_of("change", campaign.pk), url_of("export_all")),
        *(url_of(name, campaign.pk) for name in ("export", *ACTIONS)),
        f"{url_of('change', campaign.pk)}?fragment=1",
    ):
        assert stranger.get(url).status_code == 403
        assert stranger.post(url).status_code == 403
    assert Client().get(url_of("change", campaign.pk)).status_code == 302


def test_who_may_only_look_gets_no_links_to_actions():
    campaign = draft()
    viewer = staff("campaigns.view_campaign")
    html = page(viewer, campaign)
    for name in ACTIONS:
        assert url_of(name, campaign.pk) not in html
        assert viewer.post(url_of(name, campaign.pk), {"devices": 5}).status_code == 403
    assert url_of("export", campaign.pk) in html
    assert not Simulation.objects.exists()


def test_subscribers_addresses_are_for_those_who_may_see_subscriptions():
    campaign = sent(3)
    subscription = subscriber()
    deliver(subscription)
    counting.count(campaign)
    html = page(staff("campaigns.view_campaign"), campaign)
    assert "127.0.0.1" not in html
    assert subscription.pk in html
    html = page(staff("campaigns.view_campaign", "webhooks.view_subscription"), campaign)
    assert "127.0.0.1" in html


def test_only_drafts_can_be_deleted_and_addressed_anew():
    begun, waiting = draft("Begun"), draft()
    Campaign.objects.filter(pk=begun.pk).update(state=Campaign.State.RUNNING)
    client = staff()
    assert client.post(url_of("delete", begun.pk), {"post": "yes"}).status_code == 403
    assert client.post(url_of("delete", waiting.pk), {"post": "yes"}).status_code == 302
    html = page(client, begun)
    assert 'name="requester"' not in html
    assert 'name="state"' not in html
    assert 'name="requester"' in page(client, draft())


# Sending


def test_sending_is_asked_about_done_by_post_and_written_down():
    campaign = draft()
    client = staff("campaigns.view_campaign", "campaigns.simulate_campaign")
    url = url_of("simulate", campaign.pk)
    assert url in page(client, campaign)
    assert 'value="10000"' in client.get(url).content.decode()
    assert not Simulation.objects.exists()
    for wrong in ("0", "100001", "many", ""):
        answer = client.post(url, {"devices": wrong})
        assert answer.status_code == 200
        assert "errorlist" in answer.content.decode()
    assert not Simulation.objects.exists()
    answer = client.post(url, {"devices": "250"})
    assert answer.headers["Location"] == url_of("change", campaign.pk)
    simulation = Simulation.objects.get()
    assert (simulation.devices, simulation.actor) == (250, "staff:user0")
    [entry] = LogEntry.objects.all()
    assert "250 simulated devices" in entry.change_message
    html = page(client, campaign)
    assert "Sent to 0 of 250 simulated devices" in text_of(html)
    assert url not in html
    assert url_of("cancel", campaign.pk) in html


def test_it_is_cancelled_and_resumed_there():
    campaign = draft()
    client = staff()
    client.post(url_of("simulate", campaign.pk), {"devices": "5"})
    assert client.get(url_of("cancel", campaign.pk)).status_code == 200
    assert Simulation.objects.get().state == "running"
    client.post(url_of("cancel", campaign.pk))
    assert Simulation.objects.get().state == "cancelled"
    html = page(client, campaign)
    assert url_of("cancel", campaign.pk) not in html
    assert url_of("resume", campaign.pk) in html
    client.post(url_of("resume", campaign.pk))
    assert Simulation.objects.get().state == "running"
    assert LogEntry.objects.count() == 3
    # What is refused is told, and not written down.
    refused = client.post(url_of("resume", campaign.pk), follow=True).content.decode()
    assert "It is being sent already." in refused
    assert LogEntry.objects.count() == 3


def test_a_run_without_a_process_says_so_and_can_be_resumed():
    campaign = draft()
    client = staff()
    client.post(url_of("simulate", campaign.pk), {"devices": "5"})
    assert "Nobody is working on it" not in page(client, campaign)
    Simulation.objects.update(created_at=timezone.now() - timedelta(minutes=1))
    html = page(client, campaign)
    assert "Nobody is working on it" in html
    assert url_of("resume", campaign.pk) in html


# Exports


def lines(client: Client, url: str, **query: str) -> list[list[str]]:
    answer = client.get(url, query)
    assert answer.streaming
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert "attachment" in answer.headers["Content-Disposition"]
    return list(csv.reader(b"".join(answer).decode().splitlines()))


def test_the_list_is_exported_with_its_figures():
    campaign = sent(12)
    sent(4, "Another one")
    head, *rows = lines(staff(), url_of("export_all"), q="Autumn")
    [row] = [dict(zip(head, each, strict=True)) for each in rows]
    totals = CampaignStats.objects.totals([campaign.pk])[campaign.pk]
    assert (row["name"], row["sent"]) == ("Autumn sale", "12")
    assert row["delivered"] == str(totals.delivered)
    assert len(lines(staff(), url_of("export_all"))) == 3


def test_a_list_that_makes_no_sense_is_not_exported():
    answer = staff().get(url_of("export_all"), {"id__exact": "x"})
    assert answer.headers["Location"] == f"{url_of('changelist')}?e=1"


@pytest.mark.parametrize(
    "name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "  =1", "\uff1dHYPERLINK()", '=1","x']
)
def test_a_name_that_looks_like_a_formula_is_none_in_the_export(name):
    Campaign.objects.create(name=name, requester="=cmd|' /C calc'!A0", message="-")
    [_head, row] = lines(staff(), url_of("export_all"))
    assert row[1:3] == [f"'{name}", "'=cmd|' /C calc'!A0"]


def test_a_campaign_is_exported_by_the_hour():
    campaign = draft()
    at = timezone.now().replace(hour=9, minute=15, second=0, microsecond=0)
    CampaignStats.objects.add(campaign.pk, at, 0, sent=3)
    CampaignStats.objects.add(campaign.pk, at, 1, sent=4, opened=2)
    head, row = lines(staff(), url_of("export", campaign.pk))
    told = dict(zip(head, row, strict=True))
    assert told["hour"] == at.replace(minute=0).isoformat()
    assert (told["sent"], told["opened"], told["failed"]) == ("7", "2", "0")
