"""The simulated push provider. Run by ``test_provider.py``, under the example's settings."""

from __future__ import annotations

from collections import Counter

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from example_project.campaigns import provider as module
from example_project.campaigns.models import STEPS, Campaign, Device, Push
from example_project.campaigns.provider import PushProvider, Rates, simulate_devices
from webhooks import catalog
from webhooks.models import Event

pytestmark = pytest.mark.django_db


@pytest.fixture
def campaign() -> Campaign:
    return Campaign.objects.create(name="Autumn sale", requester="app:demo", message="Now!")


def run(provider: PushProvider) -> int:
    """Run the campaign to its end; how many events it says that it emitted."""
    emitted = 0
    while not provider.finished:
        emitted += provider.advance()
    provider.advance()
    return emitted


def emitted_by_type() -> dict[str, int]:
    return Counter(Event.objects.values_list("type", flat=True))


def recorded_by_type(campaign: Campaign) -> dict[str, int]:
    return {name: count for name, count in campaign.pushes.recorded().items() if count}


def test_every_step_has_its_event_and_every_event_its_step(campaign):
    simulate_devices(400)
    emitted = run(PushProvider(campaign, seed=3))
    assert emitted == Event.objects.count() == sum(campaign.pushes.recorded().values())
    assert emitted_by_type() == recorded_by_type(campaign)
    assert set(emitted_by_type()) == {f"push.{step}" for step in STEPS}


def test_events_name_their_campaign_their_owner_and_their_push(campaign):
    simulate_devices(60)
    run(PushProvider(campaign))
    assert set(Event.objects.values_list("subject", "requester")) == {
        (f"campaign:{campaign.pk}", "app:demo")
    }
    told = set()
    for event in Event.objects.order_by("pk"):
        push = Push.objects.get(pk=event.payload["push_id"])
        assert event.payload["device"]["token"] == push.device.token
        assert event.payload["at"] == event.occurred_at.isoformat().replace("+00:00", "Z")
        if (event.type, push.pk) not in told:  # a push has the moment of the first time
            assert getattr(push, f"{event.type.removeprefix('push.')}_at") == event.occurred_at
        told.add((event.type, push.pk))


def test_payloads_have_the_fields_that_the_catalogue_promises(campaign):
    simulate_devices(20)
    run(PushProvider(campaign))
    for event in Event.objects.all():
        entry = catalog.get(event.type)
        assert set(entry.schema["required"]) == set(event.payload) == set(entry.example)
        assert entry.title
        assert entry.description


def test_the_rates_are_kept(campaign):
    simulate_devices(3000)
    run(PushProvider(campaign, seed=5, chunk=500))
    steps = {name.removeprefix("push."): n for name, n in campaign.pushes.recorded().items()}
    assert steps["sent"] == 3000
    assert steps["delivered"] / steps["sent"] == pytest.approx(0.97, abs=0.015)
    opened = campaign.pushes.exclude(opened_at=None).count()
    clicked = campaign.pushes.exclude(clicked_at=None).count()
    assert opened / steps["delivered"] == pytest.approx(0.25, abs=0.03)
    assert clicked / opened == pytest.approx(0.30, abs=0.06)
    assert steps["opened"] / opened == pytest.approx(1.10, abs=0.04)
    assert steps["clicked"] / clicked == pytest.approx(1.10, abs=0.07)
    assert steps["unsubscribed"] / steps["delivered"] == pytest.approx(0.01, abs=0.007)
    failed = campaign.pushes.exclude(failed_at=None)
    assert failed.count() == 3000 - steps["delivered"]


def test_the_same_seed_gives_the_same_campaign(campaign):
    simulate_devices(100)
    again = Campaign.objects.create(name="Again", requester="app:demo", message="Now!")
    other = Campaign.objects.create(name="Other", requester="app:demo", message="Now!")
    never = Rates(unsubscribed=0)  # so that each finds the same devices
    for each, seed in ((campaign, 1), (again, 1), (other, 2)):
        run(PushProvider(each, seed=seed, rates=never))

    def story(of: Campaign) -> list[tuple[str, str]]:
        events = Event.objects.filter(subject=of.subject).order_by("pk")
        return [(event.type, event.payload["device"]["token"]) for event in events]

    assert story(campaign) == story(again)
    assert story(campaign) != story(other)


@pytest.mark.parametrize("wanted", [1, 7, 50, 51, 123])
def test_it_can_stop_at_any_number_of_events(campaign, wanted):
    simulate_devices(wanted)
    provider = PushProvider(campaign)
    emitted = 0
    while emitted < wanted:
        emitted += provider.advance(at_most=wanted - emitted)
    assert emitted == wanted == Event.objects.count()
    assert sum(campaign.pushes.recorded().values()) == wanted


@pytest.mark.django_db(transaction=True)
def test_a_step_whose_event_cannot_be_written_is_not_recorded(campaign, monkeypatch):
    simulate_devices(5)
    provider = PushProvider(campaign)
    [push, *_] = provider.send(list(Device.objects.all()))

    def refuse(*args: object, **options: object) -> None:
        raise IntegrityError("the outbox is full")

    monkeypatch.setattr(module, "emit", refuse)
    for step in ("delivered", "unsubscribed"):
        with pytest.raises(IntegrityError):
            provider.record(Push.objects.get(pk=push.pk), step)
    push.refresh_from_db()
    assert push.delivered_at is None
    assert Device.objects.get(pk=push.device_id).unsubscribed_at is None

    monkeypatch.setattr(module, "emit_many", refuse)
    other = Campaign.objects.create(name="Other", requester="app:demo", message="Now!")
    with pytest.raises(IntegrityError):
        PushProvider(other).send(list(Device.objects.all()))
    assert not other.pushes.exists()
    assert Campaign.objects.get(pk=other.pk).state == Campaign.State.DRAFT


@pytest.mark.django_db(transaction=True)
def test_what_the_caller_rolls_back_is_neither_recorded_nor_emitted(campaign):
    simulate_devices(5)
    with transaction.atomic():
        PushProvider(campaign).send(list(Device.objects.all()))
        transaction.set_rollback(True)
    assert not Push.objects.exists()
    assert not Event.objects.exists()


def test_a_chunk_of_sends_is_a_handful_of_statements(campaign):
    simulate_devices(50)
    with CaptureQueriesContext(connection) as queries:
        assert PushProvider(campaign, chunk=50).advance() == 50
    # One for all pushes and one for all events, beside the devices, the campaign's state and its
    # audience, the hour's first row in the roll-up and the transaction's own.
    for table in ("campaigns_push", "webhooks_event"):
        assert len([e for e in queries if f'INSERT INTO "{table}"' in e["sql"]]) == 1
    assert len(queries) < 12


def test_a_campaign_runs_through_its_states(campaign):
    simulate_devices(10)
    provider = PushProvider(campaign)
    assert campaign.state == "draft"
    provider.advance()
    assert Campaign.objects.get(pk=campaign.pk).state == "running"
    run(provider)
    campaign.refresh_from_db()
    assert campaign.state == "finished"
    assert campaign.started_at < campaign.finished_at


def test_a_device_that_unsubscribed_gets_no_push_of_a_later_campaign(campaign):
    simulate_devices(30)
    run(PushProvider(campaign, rates=Rates(delivered=1, unsubscribed=1)))
    assert Device.objects.filter(unsubscribed_at=None).count() == 0
    later = Campaign.objects.create(name="Later", requester="app:demo", message="Now!")
    run(PushProvider(later))
    assert not later.pushes.exists()


def test_steps_out_of_order_are_refused_by_the_database(campaign):
    [device] = simulate_devices(1)
    provider = PushProvider(campaign)
    [push] = provider.send([device])
    for step in ("opened", "clicked", "unsubscribed"):
        with pytest.raises(IntegrityError), transaction.atomic():
            provider.record(Push.objects.get(pk=push.pk), step)
    with pytest.raises(IntegrityError), transaction.atomic():
        provider.send([device])
