"""Sending in the background: slices, cancelling, crashes. Run by ``test_campaigns.py``."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.utils import timezone
from django_q.models import OrmQ, Schedule

from example_project.campaigns import checking, simulator, tasks
from example_project.campaigns.models import Campaign, Device, Push, Simulation
from example_project.campaigns.models.simulation import LEASE
from example_project.campaigns.provider import FAILED, PushProvider, simulate_devices
from tests.example.world import draft

pytestmark = pytest.mark.django_db(transaction=True)

DEVICES = 60


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulator, "GAP", 0)
    monkeypatch.setattr(simulator, "LOOK", 0)


@pytest.fixture
def run() -> Simulation:
    return simulator.start(draft(), DEVICES, actor="staff:me")


def queued() -> list[tuple[str, tuple[int, ...]]]:
    """What waits in the queue: function and arguments."""
    return [(each.task["func"], each.task["args"]) for each in OrmQ.objects.order_by("pk")]


def is_whole(run: Simulation) -> None:
    """Every device was sent to once, and each push went all the way that its dice had for it."""
    campaign = Campaign.objects.get(pk=run.campaign_id)
    assert (campaign.state, campaign.pushes.count()) == ("finished", run.devices)
    provider = PushProvider(campaign, seed=run.seed)
    for push in campaign.pushes.all():
        wanted = Counter(provider._steps(push.device_id))
        got = {
            "delivered": push.delivered_at is not None,
            "opened": push.opens,
            "clicked": push.clicks,
            "unsubscribed": push.unsubscribed_at is not None,
            FAILED: push.failed_at is not None,
        }
        assert wanted == Counter({name: int(n) for name, n in got.items() if n})
    assert list(checking.differences(campaign)) == []


def steps() -> int:
    return sum(push.steps_done for push in Push.objects.all())


def interrupt(monkeypatch: pytest.MonkeyPatch, after: int, error: BaseException) -> None:
    """Let the provider fail at its so-manieth step, this once."""
    calls = iter(range(after))
    advance = PushProvider.advance

    def failing(self: PushProvider, at_most: int | None = None) -> int:
        if next(calls, None) is None:
            monkeypatch.setattr(PushProvider, "advance", advance)
            raise error
        return advance(self, at_most)

    monkeypatch.setattr(PushProvider, "advance", failing)


def let_the_lease_end() -> None:
    Simulation.objects.update(heartbeat_at=timezone.now() - LEASE - timedelta(seconds=1))


def test_a_run_is_a_task_of_the_products_own_cluster(run):
    assert queued() == [("example_project.campaigns.tasks.simulate", (run.pk,))]
    assert OrmQ.objects.get().key == settings.Q_CLUSTER["name"] != settings.WEBHOOKS["CLUSTER"]


def test_a_run_sends_to_so_many_devices_and_ends(run):
    tasks.simulate(run.pk)
    run.refresh_from_db()
    assert (run.state, run.holder, run.failure) == ("finished", None, "")
    is_whole(run)
    # It has counted what the page shows.
    assert run.campaign.event_counts.get(type="push.sent").emitted == DEVICES


def test_devices_that_there_are_come_first():
    simulate_devices(DEVICES - 10)
    known = set(Device.objects.values_list("pk", flat=True))
    run = simulator.start(draft(), DEVICES, actor="staff:me")
    tasks.simulate(run.pk)
    assert Device.objects.count() == DEVICES
    assert known <= set(Push.objects.values_list("device_id", flat=True))
    is_whole(run)


def test_a_slice_that_is_over_hands_on(run):
    OrmQ.objects.all().delete()
    for _ in range(200):
        simulator.work(run.pk, seconds=0.02)
        if Simulation.objects.get().state == "finished":
            break
        assert queued()[-1] == ("example_project.campaigns.tasks.simulate", (run.pk,))
        assert Simulation.objects.get().holder is None
    assert OrmQ.objects.count() > 1
    is_whole(run)


def test_what_is_cancelled_stops_and_goes_on_when_it_is_resumed(run, monkeypatch):
    advance = PushProvider.advance
    calls = iter(range(30))

    def cancelling(self: PushProvider, at_most: int | None = None) -> int:
        if next(calls, None) == 29:
            simulator.cancel(run.campaign)
        return advance(self, at_most)

    monkeypatch.setattr(PushProvider, "advance", cancelling)
    tasks.simulate(run.pk)
    run.campaign.refresh_from_db()
    assert run.campaign.state == "cancelled"
    assert run.campaign.finished_at is not None
    done = steps()
    assert 0 < done < 30
    tasks.simulate(run.pk)  # of before
    assert steps() == done
    OrmQ.objects.all().delete()
    simulator.resume(run.campaign)
    assert queued() == [("example_project.campaigns.tasks.simulate", (run.pk,))]
    assert Campaign.objects.get().finished_at is None
    tasks.simulate(run.pk)
    is_whole(run)


def test_what_is_cancelled_at_the_very_end_stays_cancelled(run):
    campaign = Campaign.objects.get()
    simulator.cancel(run.campaign)
    provider = PushProvider(campaign, audience=0)
    provider.advance()
    assert provider.finished
    assert Campaign.objects.get().state == "cancelled"


@pytest.mark.parametrize("after", [0, 1, 25, 70])
def test_a_process_that_dies_is_followed_by_another_one(run, monkeypatch, after):
    # As django-q2 ends a task whose time is up, or as a signal ends a process: nothing is tidied.
    interrupt(monkeypatch, after, SystemExit())
    with pytest.raises(SystemExit):
        simulator.work(run.pk)
    held = Simulation.objects.get()
    assert (held.state, held.holder is None) == ("running", False)
    done = steps()
    OrmQ.objects.all().delete()
    simulator.work(run.pk)
    tasks.housekeep()
    assert (steps(), queued()) == (done, [])  # it may live yet
    let_the_lease_end()
    tasks.housekeep()
    assert queued() == [("example_project.campaigns.tasks.simulate", (run.pk,))]
    tasks.simulate(run.pk)
    is_whole(run)


def test_a_run_whose_first_task_was_lost_is_found(run):
    OrmQ.objects.all().delete()
    tasks.housekeep()
    assert queued() == []
    Simulation.objects.update(created_at=timezone.now() - LEASE - timedelta(seconds=1))
    assert simulator.continue_abandoned() == 1
    assert len(queued()) == 1


def test_an_error_is_kept_and_tried_again_when_the_lease_is_over(run, monkeypatch, caplog):
    OrmQ.objects.all().delete()
    interrupt(monkeypatch, 5, RuntimeError("the disk is full"))
    tasks.simulate(run.pk)
    run.refresh_from_db()
    assert run.failure == "RuntimeError: the disk is full"
    assert "was interrupted" in caplog.text
    assert queued() == []
    let_the_lease_end()
    assert simulator.continue_abandoned() == 1
    tasks.simulate(run.pk)
    assert Simulation.objects.get().failure == ""
    is_whole(run)


def test_no_two_processes_work_on_one_run(run, monkeypatch):
    advance = PushProvider.advance
    others = []

    def joined(self: PushProvider, at_most: int | None = None) -> int:
        if not others:
            others.append(run.pk)
            tasks.simulate(run.pk)
            assert not Push.objects.exists()
        return advance(self, at_most)

    monkeypatch.setattr(PushProvider, "advance", joined)
    tasks.simulate(run.pk)
    assert others
    is_whole(run)


def test_what_makes_no_sense_is_refused(run):
    with pytest.raises(ValidationError, match="begun already"):
        simulator.start(run.campaign, 5, actor="staff:me")
    with pytest.raises(ValidationError, match="being sent already"):
        simulator.resume(run.campaign)
    tasks.simulate(run.pk)
    with pytest.raises(ValidationError, match="Nothing is being sent"):
        simulator.cancel(run.campaign)
    with pytest.raises(ValidationError, match="nothing to go on with"):
        simulator.resume(run.campaign)
    other = draft()
    with pytest.raises(ValidationError, match="nothing to go on with"):
        simulator.resume(other)


def test_the_schedule_is_installed_once_for_the_products_cluster():
    for _ in range(2):
        call_command("campaign_schedules")
    schedule = Schedule.objects.get()
    assert (schedule.func, schedule.cluster, schedule.minutes) == (
        *("example_project.campaigns.tasks.housekeep", settings.Q_CLUSTER["name"]),
        1,
    )
