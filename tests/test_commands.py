"""Management commands: the schedules."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.utils.module_loading import import_string
from django_q.models import Schedule

pytestmark = pytest.mark.django_db


def install() -> str:
    out = StringIO()
    call_command("webhooks_schedules", stdout=out)
    return out.getvalue()


def rows() -> list[dict[str, Any]]:
    return list(Schedule.objects.order_by("func").values())


def test_the_schedules_are_installed() -> None:
    told = install()
    prune, sweep, tick = Schedule.objects.order_by("func")
    assert (sweep.func, sweep.schedule_type, sweep.minutes) == (
        *("webhooks.tasks.sweep", Schedule.MINUTES),
        1,
    )
    assert (prune.func, prune.schedule_type) == ("webhooks.tasks.prune", Schedule.DAILY)
    assert (tick.func, tick.schedule_type) == ("webhooks.tasks.tick", Schedule.HOURLY)
    assert (tick.next_run.minute, tick.next_run.second) == (0, 0)
    assert (sweep.repeats, prune.repeats, tick.repeats) == (-1, -1, -1)  # for ever
    assert told.count("installed") == 3


def test_each_scheduled_function_exists() -> None:
    install()
    for func in Schedule.objects.values_list("func", flat=True):
        assert callable(import_string(func))


def test_installing_again_changes_nothing() -> None:
    install()
    before = rows()
    told = install()
    assert rows() == before
    assert told.count("as it should be") == 3


def test_what_somebody_changed_is_put_right_and_its_next_run_stays() -> None:
    install()
    Schedule.objects.filter(func="webhooks.tasks.sweep").update(minutes=30, repeats=0)
    before = Schedule.objects.get(func="webhooks.tasks.sweep")
    told = install()
    after = Schedule.objects.get(func="webhooks.tasks.sweep")
    assert (after.minutes, after.repeats) == (1, -1)
    assert (after.pk, after.next_run) == (before.pk, before.next_run)
    assert told.count("updated") == 1


@pytest.mark.parametrize(
    "wrong",
    [{"args": "(1,)"}, {"kwargs": "{'a': 1}"}, {"hook": "math.floor"}, {"cluster": "other"}],
)
def test_a_schedule_whose_task_would_fail_is_put_right(wrong: dict[str, str]) -> None:
    install()
    Schedule.objects.filter(func="webhooks.tasks.sweep").update(**wrong)
    assert install().count("updated") == 1
    row = Schedule.objects.get(func="webhooks.tasks.sweep")
    assert (row.args, row.kwargs, row.hook, row.cluster) == (None, None, None, None)


def test_a_renamed_schedule_is_still_ours_and_a_second_one_goes() -> None:
    install()
    Schedule.objects.filter(func="webhooks.tasks.sweep").update(name="renamed")
    Schedule.objects.create(name="twice", func="webhooks.tasks.sweep")
    install()
    assert Schedule.objects.get(func="webhooks.tasks.sweep").name == "renamed"
    assert Schedule.objects.count() == 3


def test_the_schedules_of_the_host_are_left_alone() -> None:
    theirs = Schedule.objects.create(name="webhooks: sweep", func="host.tasks.sweep", minutes=7)
    install()
    theirs.refresh_from_db()
    assert (theirs.func, theirs.minutes) == ("host.tasks.sweep", 7)
    assert Schedule.objects.count() == 4


def test_the_schedules_go_to_the_configured_cluster(settings: Any) -> None:
    settings.WEBHOOKS = {**settings.WEBHOOKS, "CLUSTER": "main"}
    install()
    settings.WEBHOOKS = {**settings.WEBHOOKS, "CLUSTER": "webhooks"}
    assert install().count("updated") == 3
    assert set(Schedule.objects.values_list("cluster", flat=True)) == {"webhooks"}


def test_a_tick_that_was_moved_goes_back_to_minute_0() -> None:
    install()
    astray = Schedule.objects.get(func="webhooks.tasks.tick")
    assert astray.next_run is not None
    Schedule.objects.filter(pk=astray.pk).update(next_run=astray.next_run.replace(minute=17))
    assert install().count("updated") == 1
    assert Schedule.objects.get(pk=astray.pk).next_run == astray.next_run
