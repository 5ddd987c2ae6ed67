"""The page “Workers and schedules”: who works, what is late, and what to do about it."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from tests.admin.browsing import EVIL, html_of, url_of
from tests.world import Receiver, emit_orders, fan_out_all, subscribe
from webhooks import tasks
from webhooks.clock import db_now
from webhooks.models import Duty, Lane, Worker

pytestmark = pytest.mark.django_db(transaction=True)

Staff = Callable[..., Client]


def address() -> str:
    return reverse("admin:webhooks_workersandschedules_changelist")


def page(client: Client, **query: Any) -> str:
    return html_of(client, address(), **query)


def banner(html: str) -> str:
    """The headline, on one line."""
    found = re.search(r'<p class="wh-headline">.*?</p>', html, re.S)
    assert found
    return " ".join(re.sub(r"<[^>]*>", " ", found[0]).split())


def schedules(html: str) -> dict[str, list[str]]:
    """The cells of each schedule's line, by its name."""
    part = html[html.index("What runs by the clock") : html.index("Who works now")]
    lines = [
        [
            re.sub(r"<[^>]*>", "", cell).strip()
            for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)
        ]
        for row in re.findall(r'<tr><th scope="row">.*?</tr>', part)
    ]
    return {line[0]: line[1:] for line in lines}


def all_ran(ago: timedelta = timedelta(0), **late: timedelta) -> None:
    """The schedules ran so long ago; those named, so much longer."""
    Duty.objects.ensure()
    now = db_now("default")
    for duty in Duty.objects.all():
        duty.ran_at = now - ago - late.get(duty.name, timedelta(0))
        duty.save()


def work(slot: int = 0, ago: timedelta = timedelta(0), **values: Any) -> Worker:
    now = db_now("default")
    given = {"host": "h1", "pid": 9, "started_at": now, "heartbeat_at": now - ago, **values}
    return Worker.objects.create(slot=slot, token=uuid.uuid4(), **given)


def test_it_stands_in_the_index_for_those_who_may_see_it(staff: Staff) -> None:
    client = staff("view_workersandschedules")
    assert address() in html_of(client, reverse("admin:index"))
    html = page(client)
    own = html[html.index('id="content"') :]
    for model in (Worker, Lane, Duty):
        assert url_of(model) not in own
        assert url_of(model) in page(staff())
    html_of(staff("view_worker"), address(), status=403)


def test_nothing_ever_ran(staff: Staff) -> None:
    html = page(staff())
    assert banner(html).startswith("○ Idle — what runs by the clock has never run")
    assert schedules(html)["sweep"][0].endswith("never run")
    assert "manage.py webhooks_schedules" in html


def test_all_is_well(staff: Staff) -> None:
    all_ran()
    work(in_flight=17, lanes=2)
    work(1, in_flight=5, lanes=1)
    html = page(staff())
    assert banner(html) == "● Healthy — 2 workers are at work, with 22 POSTs in flight."
    assert {line[0].split(" ", 1)[1] for line in schedules(html).values()} == {"on time"}
    assert "qcluster" not in html


def test_nobody_works_and_nothing_is_to_be_done(staff: Staff) -> None:
    all_ran()
    assert "nobody works now, and nothing is to be done" in banner(page(staff()))


def test_a_schedule_that_is_late_says_how_much_and_what_to_do(staff: Staff) -> None:
    all_ran(tick=timedelta(hours=5))
    Duty.objects.filter(name="tick").update(late_ms=7_000)
    html = page(staff())
    assert banner(html) == "▲ Degraded — tick is 4 h late: is a worker running?"
    assert schedules(html)["tick"][0].endswith("4 h late: is a worker running?")
    assert schedules(html)["tick"][2] == "7 s"
    assert "manage.py qcluster" in schedules(html)["tick"][4]
    assert schedules(html)["sweep"][0].endswith("on time")


@pytest.mark.parametrize(
    ("name", "every", "grace"),
    [
        ("sweep", timedelta(minutes=1), timedelta(minutes=1)),
        ("tick", timedelta(hours=1), timedelta(minutes=2)),
        ("prune", timedelta(days=1), timedelta(hours=1)),
    ],
)
def test_what_is_on_time_is_not_called_late(
    staff: Staff, name: str, every: timedelta, grace: timedelta
) -> None:
    some = timedelta(seconds=20)
    for ago, word in ((every + grace - some, "on time"), (every + grace + some, "late:")):
        all_ran()
        Duty.objects.filter(name=name).update(ran_at=db_now("default") - ago)
        assert word in schedules(page(staff()))[name][0]


def test_what_ran_just_now_is_on_time(staff: Staff) -> None:
    for task in (tasks.sweep, tasks.tick, tasks.prune):
        task()
    assert all("on time" in line[0] for line in schedules(page(staff())).values())


def test_work_that_nobody_does_is_down(staff: Staff, receiver: Receiver) -> None:
    all_ran()
    subscribe(receiver)
    emit_orders(1)
    fan_out_all()
    Lane.objects.update(claim_at=db_now("default") - timedelta(minutes=12))
    html = page(staff())
    assert banner(html).startswith("■ Down — work has been due for 12 min, and no worker")
    assert "<dt>Lanes that wait</dt>" in html


def test_a_worker_that_is_silent_is_marked(staff: Staff) -> None:
    all_ran()
    work(ago=timedelta(minutes=4), host=EVIL)
    html = page(staff())
    assert "silent" in html
    assert "4 min ago" in html
    assert EVIL not in html
    assert "nobody works now" in banner(html)


def test_the_part_that_renews_itself_comes_alone(staff: Staff) -> None:
    client = staff()
    whole, part = page(client), page(client, fragment="1")
    assert 'data-seconds="15"' in whole
    assert "<html" not in part
    assert banner(part) == banner(whole)
    own = whole[whole.index('id="content"') :]
    assert not re.search(r"<script|<style| style=| on\w+=|javascript:", own)


def test_it_costs_as_many_statements_for_many_workers_as_for_one(staff: Staff) -> None:
    client = staff()
    all_ran()
    work()
    page(client)
    with CaptureQueriesContext(connection) as few:
        page(client)
    for slot in range(1, 60):
        work(slot)
    with CaptureQueriesContext(connection) as many:
        page(client)
    assert len(many) == len(few) <= 18
