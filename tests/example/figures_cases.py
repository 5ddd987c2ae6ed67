"""The roll-up, the counts and their check. Run by ``test_campaigns.py``."""

from __future__ import annotations

import io
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from example_project.campaigns import checking, counting
from example_project.campaigns.models import Campaign, CampaignStats, Device, EventCount, Push
from example_project.campaigns.models.stats import SHARDS, Totals
from example_project.campaigns.provider import PushProvider, Rates, simulate_devices
from tests.example.world import deliver, draft, sent, subscriber
from webhooks.models import Event

pytestmark = pytest.mark.django_db

OFTEN = Rates(delivered=0.8, opened=0.9, clicked=0.8, again=0.7, unsubscribed=0.2)


def totals_of(campaign: Campaign) -> Totals:
    return CampaignStats.objects.totals([campaign.pk])[campaign.pk]


def by_rows(campaign: Campaign) -> Totals:
    """The same, from the pushes alone."""
    pushes = list(campaign.pushes.all())

    def having(column: str) -> int:
        return sum(getattr(push, column) is not None for push in pushes)

    return Totals(
        sent=len(pushes),
        delivered=having("delivered_at"),
        opened=sum(push.opens for push in pushes),
        opened_unique=having("opened_at"),
        clicked=sum(push.clicks for push in pushes),
        clicked_unique=having("clicked_at"),
        unsubscribed=having("unsubscribed_at"),
        failed=having("failed_at"),
    )


def test_the_roll_up_is_what_the_pushes_are():
    campaign = sent(80, rates=OFTEN)
    sent(30, "Another one", rates=OFTEN)
    totals = totals_of(campaign)
    assert totals == by_rows(campaign)
    assert totals.opened > totals.opened_unique > 0
    assert totals.clicked > totals.clicked_unique > 0
    assert totals.failed == totals.sent - totals.delivered > 0
    assert totals.events == Event.objects.filter(subject=campaign.subject).count()
    assert list(checking.differences(campaign)) == []


def test_several_providers_share_a_campaign_without_sharing_a_row():
    campaign = draft()
    simulate_devices(6)
    devices = list(Device.objects.all())
    providers = [PushProvider(campaign) for _ in range(3)]
    for i, provider in enumerate(providers):
        provider._shard = i
        provider.send(devices[2 * i : 2 * i + 2])
    assert sorted(campaign.stats.values_list("shard", "sent")) == [(0, 2), (1, 2), (2, 2)]
    assert totals_of(campaign).sent == 6
    assert {PushProvider(campaign)._shard for _ in range(200)} == set(range(SHARDS))


def test_steps_are_counted_in_the_hour_in_which_they_happen():
    campaign = draft()
    now = timezone.now().replace(hour=10, minute=59)
    for at in (now, now + timedelta(minutes=2), now):
        CampaignStats.objects.add(campaign.pk, at, 0, sent=1)
    hours = CampaignStats.objects.by_hour(campaign.pk)
    assert [(hour.hour, each.sent) for hour, each in hours.items()] == [(10, 2), (11, 1)]


@pytest.mark.django_db(transaction=True)
def test_what_is_rolled_back_is_not_counted():
    campaign = draft()
    simulate_devices(2)
    provider = PushProvider(campaign)
    [push, _other] = provider.send(list(Device.objects.all()))
    before = totals_of(campaign)
    with transaction.atomic():
        provider.record(push, "delivered")
        transaction.set_rollback(True)
    assert totals_of(campaign) == before == by_rows(campaign)


@pytest.mark.parametrize("step", ["delivered", "opened"])
def test_a_step_that_another_provider_recorded_meanwhile_is_not_recorded_twice(step):
    campaign = draft()
    [device] = simulate_devices(1)
    provider = PushProvider(campaign)
    [push] = provider.send([device])
    if step == "opened":
        provider.record(push, "delivered")
    stale = Push.objects.select_related("device").get(pk=push.pk)
    assert provider.record(push, step)
    assert not provider.record(stale, step)
    assert Event.objects.filter(type=f"push.{step}").count() == 1
    assert totals_of(campaign) == by_rows(campaign)


def test_the_migrations_are_what_the_models_are():
    call_command("makemigrations", "campaigns", check=True, dry_run=True, verbosity=0)


# The check


def check(campaign: Campaign, *options: str) -> str:
    out = io.StringIO()
    call_command("campaign_check", str(campaign.pk), *options, stdout=out)
    return out.getvalue()


def test_the_check_agrees_with_a_campaign_that_is_right():
    campaign = sent(30)
    assert check(campaign) == f"{campaign.pk} Autumn sale: agrees\n"


def test_the_check_names_what_differs_and_repairs_the_roll_up():
    campaign = sent(30, rates=OFTEN)
    before = totals_of(campaign)
    campaign.stats.update(delivered=before.delivered + 2, opened=before.opened - 1)
    with pytest.raises(CommandError, match="1 of the campaigns disagree"):
        check(campaign)
    reasons = "\n".join(checking.differences(campaign))
    assert f"delivered is {before.delivered + 2} in the roll-up, {before.delivered} by" in reasons
    assert f"opened is {before.opened - 1} in the roll-up, {before.opened} by rows" in reasons
    assert check(campaign, "--repair").endswith("agrees\n")
    assert totals_of(campaign) == before


def test_the_check_notices_an_event_that_is_missing():
    campaign = sent(20)
    Event.objects.filter(type="push.delivered")[0].delete()
    [reason] = checking.differences(campaign)
    assert "events push.delivered" in reason


# Counting


def test_both_sides_are_counted_by_type():
    campaign = sent(40, rates=OFTEN)
    sent(10, "Another one")
    counting.count(campaign)
    counted = {each.type: (each.emitted, each.recorded) for each in campaign.event_counts.all()}
    assert counted == {name: (n, n) for name, n in campaign.pushes.recorded().items()}
    Event.objects.filter(subject=campaign.subject, type="push.sent")[0].delete()
    counting.count(campaign)
    assert campaign.event_counts.get(type="push.sent").emitted == 39
    assert campaign.event_counts.get(type="push.sent").recorded == 40


def test_a_campaign_whose_events_are_all_gone_does_not_tie_out():
    campaign = sent(5)
    Event.objects.all().delete()
    counting.count(campaign)
    assert campaign.event_counts.get(type="push.sent").recorded == 5
    assert campaign.event_counts.get(type="push.sent").emitted == 0


def test_deliveries_are_counted_by_subscriber_type_and_state():
    campaign = sent(20, rates=OFTEN)
    other = sent(5, "Another one")
    everything, clicks = subscriber(), subscriber("push.clicked")
    deliver(everything, "delivered", subject=campaign.subject, type="push.sent")
    deliver(everything, "pending", subject=campaign.subject, type="push.opened")
    deliver(everything, "dead", subject=other.subject)
    clicked = deliver(clicks, "dead", subject=campaign.subject, type="push.clicked")
    deliver(everything, "expired", subject=campaign.subject, type="push.clicked")
    counting.count(campaign)
    found = {
        (each.subscription_id, each.type): (each.delivered, each.pending, each.dead, each.ended)
        for each in campaign.delivery_counts.all()
    }
    opened = campaign.pushes.recorded()["push.opened"]
    assert found == {
        (everything.pk, "push.sent"): (20, 0, 0, 0),
        (everything.pk, "push.opened"): (0, opened, 0, 0),
        (everything.pk, "push.clicked"): (0, 0, 0, clicked),
        (clicks.pk, "push.clicked"): (0, 0, clicked, 0),
    }


def test_a_count_costs_the_same_for_any_campaign():
    statements = []
    for devices in (1, 40):
        campaign = sent(devices)
        deliver(subscriber(), subject=campaign.subject)
        with CaptureQueriesContext(connection) as queries:
            counting.count(campaign)
        statements.append(len(queries))
    assert statements[0] == statements[1]


def test_a_count_that_began_earlier_does_not_replace_a_later_one():
    campaign = sent(5)
    later = timezone.now() + timedelta(seconds=5)
    Campaign.objects.filter(pk=campaign.pk).update(counted_at=later)
    counting.count(campaign)
    assert not EventCount.objects.exists()
    assert Campaign.objects.get(pk=campaign.pk).counted_at == later


def test_the_longer_ago_a_campaign_ended_the_rarer_it_is_counted():
    campaign = sent(3)
    draft("Not begun")
    assert counting.count_due() == 1
    ended = campaign.finished_at
    patient = ended + timedelta(hours=20)
    Campaign.objects.update(counted_at=patient - timedelta(minutes=50))
    assert counting.count_due(patient) == 0
    Campaign.objects.update(counted_at=patient - timedelta(minutes=70))
    assert counting.count_due(patient) == 1
    assert counting.count_due(ended + timedelta(days=8)) == 0
