"""The page “Dead letters”: what it shows, whom it lets do what, and that it is done once."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.admin.models import LogEntry
from django.db import connection, connections, transaction
from django.test import AsyncClient, Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from tests.admin.browsing import EVIL, html_of, url_of
from tests.world import Receiver, deliver, emit_orders, fan_out_all, states, subscribe
from webhooks import dead_letters, emit, lifecycle
from webhooks.admin.dead_letters import COLUMNS
from webhooks.clock import db_now
from webhooks.engine import dead_letters as engine
from webhooks.engine import housekeeping, replays
from webhooks.models import (
    DeadLetter,
    DeadLetterRun,
    Delivery,
    DeliveryAttempt,
    Duty,
    Event,
    Lane,
    Subscription,
)
from webhooks.models.dead_letters import Matching, Place
from webhooks.models.delivery import State
from webhooks.models.fields import first_id_of
from webhooks.models.subscription import Status

pytestmark = pytest.mark.django_db(transaction=True)

Staff = Callable[..., Client]
HOUR = timedelta(hours=1)


def address(name: str = "changelist", **kwargs: Any) -> str:
    return reverse(f"admin:webhooks_deadletter_{name}", kwargs=kwargs)


def page(client: Client, **query: Any) -> str:
    return html_of(client, address(), **query)


def bury(
    subscription: Subscription,
    count: int = 1,
    reason: str = "timeout",
    *,
    type: str = "order.paid",
    ago: timedelta = timedelta(seconds=1),
) -> list[str]:
    """So many new dead letters of a subscription, all given up at one moment."""
    now = db_now("default")
    owner = subscription.requester
    events = Event.objects.bulk_create(
        Event(type=type, requester=owner, data='{"card": 4111}', fanned_out_at=now)
        for _ in range(count)
    )
    made = Delivery.objects.bulk_create(
        Delivery(
            event=event,
            subscription=subscription,
            state=State.DEAD,
            reason=reason,
            attempts=10,
            settled_at=now - ago,
        )
        for event in events
    )
    return [each.pk for each in made]


def counts(html: str) -> list[str]:
    """What stands in the first column of the groups."""
    return re.findall(r'<tr><td class="wh-n"><a href="[^"]*">([^<]*)</a>', html)


def finish() -> int:
    """Advance until there is nothing more to do; how many batches that took."""
    batches = 0
    while replays.advance("default"):
        batches += 1
        assert batches < 1000
    return batches


def follow(client: Client, answer: Any) -> str:
    assert answer.status_code == 302
    return html_of(client, answer.url)


# What it shows


def test_it_groups_by_subscription_and_reason_the_most_first(
    staff: Staff, receiver: Receiver
) -> None:
    a, b = subscribe(receiver, "app:a"), subscribe(receiver, "app:b")
    bury(a, 2, "timeout")
    bury(a, 1, "dns_error")
    bury(b, 3, "timeout")
    emit_orders(4)  # pending ones are none
    fan_out_all()
    html = page(staff())
    assert counts(html) == ["3", "2", "1"]
    first = html[html.index("By subscription and reason") :]
    assert first.index("app:b") < first.index("app:a")
    assert "No answer in time" in html
    assert "the host in callback_url" in html.replace("Check ", "")


def test_a_group_leads_to_its_rows_the_newest_first(staff: Staff, receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    [old] = bury(subscription, ago=HOUR)
    [new] = bury(subscription)
    bury(subscription, reason="dns_error")
    client = staff()
    [link] = re.findall(r'<td class="wh-n"><a href="([^"]*timeout[^"]*)">', page(client))
    html = html_of(client, link.replace("&amp;", "&"))
    assert re.findall(r'name="id" value="(\w+)"', html) == [new, old]
    assert url_of(Delivery, "change", new) in html


def test_a_group_without_a_reason_has_rows_too(staff: Staff, receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    [pk] = bury(subscription, reason="")
    bury(subscription, reason="timeout")
    client = staff()
    [link] = re.findall(r'<td class="wh-n"><a href="([^"]*reason=-[^"]*)">', page(client))
    html = html_of(client, link.replace("&amp;", "&"))
    assert re.findall(r'name="id" value="(\w+)"', html) == [pk]


def test_the_rows_are_paged_by_key(
    staff: Staff, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webhooks.admin.dead_letters.LISTED", 2)
    subscription = subscribe(receiver)
    ids = bury(subscription, 5)  # all of one moment
    client = staff()
    seen: list[str] = []
    url = f"{address()}?subscription={subscription.pk}&reason=timeout"
    for _page in range(3):
        html = html_of(client, url)
        seen += re.findall(r'name="id" value="(\w+)"', html)
        url = "".join(re.findall(r'href="([^"]*before=[^"]*)">Next', html)).replace("&amp;", "&")
    assert url == ""
    assert seen == sorted(ids, reverse=True)


def test_the_groups_are_paged_and_none_is_hidden(
    staff: Staff, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webhooks.admin.dead_letters.GROUPS", 2)
    monkeypatch.setattr("webhooks.admin.dead_letters.LEAPS", 3)
    made = [subscribe(receiver, f"app:{i}") for i in range(3)]
    for each in made:
        bury(each, 1, "timeout")
        bury(each, 1, "dns_error")
    client = staff()
    for query, expected in (({}, 6), ({"reason": "timeout"}, 3)):
        seen, url = 0, f"{address()}?{'&'.join(f'{k}={v}' for k, v in query.items())}"
        for _page in range(6):
            html = html_of(client, url)
            seen += len(counts(html))
            following = re.findall(r'href="([^"]*after=[^"]*)">Next', html)
            if not following:
                break
            url = following[0].replace("&amp;", "&")
        assert seen == expected


def test_a_filter_says_which(staff: Staff, receiver: Receiver) -> None:
    a, b = subscribe(receiver, "app:a"), subscribe(receiver, "app:b")
    bury(a, 2, "timeout", ago=3 * HOUR)
    bury(a, 1, "dns_error")
    bury(b, 4, "timeout")
    client = staff()
    assert counts(page(client, subscription=a.pk)) == ["2", "1"]
    assert counts(page(client, reason="timeout")) == ["4", "2"]
    start = f"{timezone.now() - 2 * HOUR:%Y-%m-%dT%H:%M}"
    assert counts(page(client, start=start)) == ["4", "1"]
    assert counts(page(client, end=start)) == ["2"]
    assert counts(page(client, subscription="sub_" + "7" * 32)) == []
    assert "There is none" in page(client, subscription="sub_" + "7" * 32)


def test_rows_keep_to_an_event_type(staff: Staff, receiver: Receiver) -> None:
    subscription = subscribe(receiver, event_types=["*"])
    bury(subscription, 1)
    [wanted] = bury(subscription, 1, type="order.shipped")
    html = page(staff(), subscription=subscription.pk, reason="timeout", type="order.shipped")
    assert re.findall(r'name="id" value="(\w+)"', html) == [wanted]


@pytest.mark.parametrize(
    "query",
    [{"subscription": EVIL}, {"subscription": "sub_7"}, {"start": "x"}, {"reason": "a\0b"},
     {"start": "2026-01-02T00:00", "end": "2026-01-01T00:00"}],
)  # fmt: skip
def test_a_filter_that_is_none_is_told(staff: Staff, query: dict[str, str]) -> None:
    client = staff()
    html = page(client, **query)
    assert "errorlist" in html
    assert EVIL not in html
    for name in ("retry", "discard"):
        assert client.get(address(name), query).status_code == 302
    assert client.get(address("export", form="csv"), query).status_code == 302


@pytest.mark.parametrize("query", [{"after": "x~y"}, {"before": "x~dlv_7"}, {"after": "sub_~\0"},
                                   {"before": "2026~dlv_" + "1" * 32}])  # fmt: skip
def test_a_place_that_is_none_is_the_first(
    staff: Staff, receiver: Receiver, query: dict[str, str]
) -> None:
    subscription = subscribe(receiver)
    bury(subscription)
    html = page(staff(), subscription=subscription.pk, reason="timeout", **query)
    assert "order.paid" in html


def test_it_has_nothing_inline_and_shows_nothing_from_outside_as_markup(
    staff: Staff, receiver: Receiver
) -> None:
    subscription = subscribe(receiver, EVIL)
    Subscription.objects.update(callback_url=f"https://h/{EVIL}?token=in-the-query")
    bury(subscription, reason=EVIL)
    client = staff()
    run = dead_letters.begin("discard", Matching(), note=EVIL, actor=EVIL)
    for html in (
        page(client),
        page(client, subscription=subscription.pk, reason=EVIL),
        html_of(client, address("discard"), reason=EVIL),
        html_of(client, address("run", run_id=run.pk)),
    ):
        assert EVIL not in html
        assert "in-the-query" not in html
        own = html[html.index('id="content"') :]
        assert not re.search(r"<script|<style| style=| on\w+=|javascript:", own)


# Who may


def test_it_stands_in_the_index_for_those_who_may_see_it(staff: Staff) -> None:
    client = staff("view_deadletter")
    assert address() in html_of(client, reverse("admin:index"))
    page(client)
    other = staff("view_delivery")
    assert address() not in html_of(other, reverse("admin:index"))
    html_of(other, address(), status=403)


@pytest.mark.parametrize(
    ("name", "permission"),
    [("retry", "replay_delivery"), ("discard", "discard_deadletter"),
     ("retry_selected", "replay_delivery"), ("discard_selected", "discard_deadletter")],
)  # fmt: skip
def test_each_action_has_a_permission_of_its_own(
    staff: Staff, receiver: Receiver, name: str, permission: str
) -> None:
    subscription = subscribe(receiver)
    ids = bury(subscription)
    query = {"subscription": subscription.pk, "reason": "timeout", "id": ids}
    both = {"replay_delivery", "discard_deadletter"}
    for client, allowed in (
        (staff("view_deadletter", permission), True),
        (staff("view_deadletter", *(both - {permission})), False),
        (staff(permission), False),
    ):
        if client.get(address()).status_code == 200:
            shown = page(client, subscription=subscription.pk, reason="timeout")
            assert (address(name) in shown) is allowed
        for method in (client.get, client.post):
            answer = method(f"{address(name)}?id={ids[0]}", {"note": "x"} if allowed else {})
            assert (answer.status_code != 403) is allowed
    assert query["id"] == ids


def test_a_post_needs_its_token(staff: Staff, receiver: Receiver) -> None:
    ids = bury(subscribe(receiver))
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = staff().cookies
    for name in ("retry", "discard", "retry_selected", "discard_selected"):
        assert strict.post(f"{address(name)}?id={ids[0]}", {"note": "x"}).status_code == 403
    assert states() == {"dead": 1}


def test_the_selection_is_no_action_for_those_who_may_do_nothing(
    staff: Staff, receiver: Receiver
) -> None:
    subscription = subscribe(receiver)
    bury(subscription)
    html = page(staff("view_deadletter"), subscription=subscription.pk, reason="timeout")
    assert 'name="id"' not in html
    assert "Retry" not in html
    assert "Discard" not in html


# Those that are selected


def test_the_selected_are_retried(staff: Staff, receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    ids = bury(subscription, 3)
    client = staff()
    target = f"{address('retry_selected')}?id={ids[0]}&id={ids[1]}&subscription={subscription.pk}"
    assert "2 dead letters will be sent again" in html_of(client, target)
    assert states() == {"dead": 3}
    html = follow(client, client.post(target))
    assert "2 of 2: retried." in html
    deliver()
    assert states() == {"delivered": 2, "dead": 1}
    assert len(receiver.posts) == 2
    assert set(DeliveryAttempt.objects.values_list("trigger", flat=True)) == {"manual"}
    assert set(LogEntry.objects.values_list("object_id", flat=True)) == set(ids[:2])
    history = html_of(
        client, reverse("admin:webhooks_delivery_history", args=[ids[0].replace("_", "_5F")])
    )
    assert "Retried." in history


def test_the_selected_are_discarded_with_a_reason(staff: Staff, receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    ids = bury(subscription, 2)
    client = staff()
    target = f"{address('discard_selected')}?id={ids[0]}"
    assert "errorlist" in client.post(target, {"note": " "}).content.decode()
    assert states() == {"dead": 2}
    assert "1 of 1: discarded." in follow(client, client.post(target, {"note": "refunded by hand"}))
    found = Delivery.objects.get(pk=ids[0])
    assert (found.state, found.reason) == ("discarded", "operator")
    assert found.settled_at is not None
    [entry] = LogEntry.objects.all()
    assert (entry.object_id, entry.user.get_username()) == (ids[0], "user0")
    assert entry.get_change_message() == "Discarded: refunded by hand"
    assert counts(page(client)) == ["1"]  # it waits for nobody any more
    deliver()
    assert not receiver.posts


def test_what_is_dead_no_longer_is_left_alone(staff: Staff, receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    ids = bury(subscription, 2)
    client = staff()
    Delivery.objects.filter(pk=ids[0]).update(state=State.DELIVERED)
    for name in ("retry_selected", "discard_selected"):
        html = follow(client, client.post(f"{address(name)}?id={ids[0]}", {"note": "x"}))
        assert "0 of 1" in html
        assert "dead no longer" in html
    assert states() == {"delivered": 1, "dead": 1}
    assert not LogEntry.objects.exists()


def test_nothing_selected_is_told(staff: Staff) -> None:
    client = staff()
    for query in ({}, {"id": "dlv_7"}, {"id": EVIL}):
        answer = client.get(address("retry_selected"), query)
        assert "Nothing was selected" in follow(client, answer)


def test_what_was_delivered_meanwhile_is_not_sent_again(receiver: Receiver) -> None:
    """Read once more under the lane's lock: between the two, somebody else may have retried it."""
    ids = bury(subscribe(receiver), 2)
    lane = Lane.objects.get()
    Delivery.objects.filter(pk=ids[0]).update(state=State.DELIVERED)
    with transaction.atomic():
        assert engine.retry("default", lane, ids, trigger="replay") == ids[1:]
    Delivery.objects.filter(pk=ids[1]).update(state=State.DEAD, settled_at=db_now("default"))
    with transaction.atomic():
        assert engine.discard("default", ids) == ids[1:]
    assert states() == {"delivered": 1, "discarded": 1}


def test_what_travelled_in_a_batch_is_gathered_anew(receiver: Receiver) -> None:
    subscription = subscribe(receiver, batch_size=10)
    emit_orders(2)
    fan_out_all()
    Delivery.objects.all().settle(State.DEAD, now=db_now("default"), reason="timeout")
    assert len(dead_letters.retry(list(Delivery.objects.values_list("pk", flat=True)))) == 2
    deliver()
    assert states() == {"delivered": 2}
    assert len(receiver.posts) == 1
    assert subscription.pk


# All that match


def test_a_big_group_is_retried_by_a_worker(
    staff: Staff, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replays, "BATCH", 20)
    monkeypatch.setattr(replays.advance, "__defaults__", (20,))
    subscription, other = subscribe(receiver), subscribe(receiver, "app:b")
    bury(subscription, 130)
    bury(subscription, 3, "dns_error")
    bury(other, 2)
    client = staff()
    target = f"{address('retry')}?subscription={subscription.pk}&reason=timeout"
    preview = html_of(client, target)
    assert "Preview: 130 dead letters" in preview
    assert "order.paid" in preview
    assert states() == {"dead": 135}
    answer = client.post(target)
    assert "0 of 130 dead letters looked at" in follow(client, answer)
    run = DeadLetterRun.objects.get()
    assert (run.total, run.actor, run.state) == (130, "staff:user0", "running")
    assert run.pk in LogEntry.objects.get(object_id=subscription.pk).change_message
    deliver()
    part = html_of(client, answer.url, fragment="1")
    assert "130 of 130 dead letters looked at" in part
    assert "finished" in part
    assert "Cancel" not in part
    assert states() == {"delivered": 130, "dead": 5}
    assert len(receiver.posts) == 130
    assert receiver.duplicates == 0


def test_all_that_match_are_discarded_with_a_reason(staff: Staff, receiver: Receiver) -> None:
    for i in range(3):
        bury(subscribe(receiver, f"app:{i}"), 2)
    client = staff()
    target = f"{address('discard')}?reason=timeout"
    assert "errorlist" in client.post(target, {}).content.decode()
    assert not DeadLetterRun.objects.exists()
    answer = client.post(target, {"note": "the campaign was called off"})
    finish()
    assert states() == {"discarded": 6}
    html = html_of(client, answer.url)
    assert "the campaign was called off" in html
    [entry] = LogEntry.objects.all()
    assert "the campaign was called off" in entry.change_message
    assert counts(page(client)) == []


def test_a_run_keeps_to_what_it_was_asked_for(receiver: Receiver) -> None:
    a, b = subscribe(receiver, event_types=["*"]), subscribe(receiver, "app:b")
    bury(a, 1, "dns_error")
    bury(a, 1, ago=5 * HOUR)
    bury(a, 1, type="order.shipped")
    bury(b, 1)
    wanted = bury(a, 3)
    now = db_now("default")
    run = dead_letters.begin(
        "discard", Matching(a.pk, "timeout", ("order.paid",), now - HOUR, now + HOUR)
    )
    [later] = bury(a, 1, ago=-HOUR / 2)  # it dies after it was asked for
    finish()
    run.refresh_from_db()
    assert (run.state, run.total, run.done, run.changed) == ("finished", 4, 4, 3)
    assert set(Delivery.objects.filter(state="discarded").values_list("pk", flat=True)) == set(
        wanted
    )
    assert Delivery.objects.get(pk=later).state == "dead"


def test_a_run_over_many_lanes_and_reasons_looks_at_each_once(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "LANES", 2)
    monkeypatch.setattr(engine, "SCANNED", 7)
    for i in range(5):
        each = subscribe(receiver, f"app:{i}")
        for reason in ("dns_error", "timeout", "tls_error"):
            bury(each, 3, reason)
    run = dead_letters.begin("discard", Matching(reason="timeout"))
    while replays.advance("default", 4):
        pass
    run.refresh_from_db()
    assert (run.state, run.total, run.done, run.changed) == ("finished", 15, 15, 15)
    assert states() == {"discarded": 15, "dead": 30}
    # Of one subscription, two reasons are left.
    own = dead_letters.begin("discard", Matching(Subscription.objects.order_by("-pk")[0].pk))
    while replays.advance("default", 4):
        pass
    own.refresh_from_db()
    assert (own.state, own.total, own.done, own.changed) == ("finished", 6, 6, 6)


def test_a_run_is_cancelled(staff: Staff, receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    bury(subscription, 6)
    client = staff()
    shown = client.post(f"{address('retry')}?reason=timeout").url
    run = DeadLetterRun.objects.get()
    assert replays.advance("default", 2)
    target = address("run_cancel", run_id=run.pk)
    assert target in html_of(client, shown)
    assert client.get(target).status_code == 405
    weak = staff("view_deadletter", "discard_deadletter")
    assert target not in html_of(weak, shown)
    assert weak.post(target).status_code == 403
    assert "was cancelled" in follow(client, client.post(target))
    assert not replays.advance("default", 2)
    assert states() == {"pending": 2, "dead": 4}
    assert LogEntry.objects.count() == 2
    assert "ended already" in follow(client, client.post(target))
    assert LogEntry.objects.count() == 2


def test_a_run_that_is_none_is_not_found(staff: Staff) -> None:
    client = staff()
    for pk in ("dlr_7", "dlr_" + "1" * 32, "rpl_" + "1" * 32):
        assert client.get(address("run", run_id=pk)).status_code == 404
        assert client.post(address("run_cancel", run_id=pk)).status_code == 404


def test_a_run_goes_on_where_a_worker_died(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription = subscribe(receiver)
    bury(subscription, 9)
    run = dead_letters.begin("retry", Matching())
    assert replays.advance("default", 4)

    def die(*args: Any, **kwargs: Any) -> Any:
        raise SystemExit  # in the middle of its transaction, after all was written

    with monkeypatch.context() as patched:
        patched.setattr(DeadLetterRun, "save", die)
        with pytest.raises(SystemExit):
            replays.advance("default", 4)
    assert states() == {"pending": 4, "dead": 5}
    deliver()
    run.refresh_from_db()
    assert (run.state, run.done, run.changed) == ("finished", 9, 9)
    assert len(receiver.posts) == 9
    assert receiver.duplicates == 0


def test_what_nothing_may_be_sent_to_is_passed_over(receiver: Receiver) -> None:
    gone, here = subscribe(receiver), subscribe(receiver, "app:b")
    lost = subscribe(receiver, "app:c")
    for each in (gone, here, lost):
        bury(each, 2)
    lifecycle.change_status(gone, Status.UNSUBSCRIBED, reason="client")
    Subscription.objects.filter(pk=lost.pk).update(application=4711)
    run = dead_letters.begin("retry", Matching())
    finish()
    run.refresh_from_db()
    assert (run.done, run.changed) == (6, 2)
    assert states() == {"dead": 4, "pending": 2}
    assert dead_letters.retry(list(DeadLetter.objects.values_list("pk", flat=True))) == []


def test_a_suspended_subscription_waits_until_it_is_resumed(receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    bury(subscription, 2)
    lifecycle.suspend(subscription, reason="operator")
    dead_letters.begin("retry", Matching())
    deliver()
    assert states() == {"pending": 2}
    lifecycle.resume(subscription, reason="operator")
    deliver()
    assert states() == {"delivered": 2}


def test_the_sweep_wakes_somebody_for_a_run_and_the_pruning_removes_old_ones(
    receiver: Receiver,
) -> None:
    Duty.objects.ensure()
    assert not housekeeping.sweep("default")
    run = dead_letters.begin("discard", Matching())
    assert housekeeping.sweep("default")
    dead_letters.cancel(run)
    assert not housekeeping.sweep("default")
    long_ago = db_now("default") - timedelta(days=60)
    old = DeadLetterRun.objects.create(
        pk=first_id_of(long_ago, "dlr"), action="retry", state="finished", finished_at=long_ago
    )
    unfinished = DeadLetterRun.objects.create(
        pk=first_id_of(long_ago - HOUR, "dlr"), action="retry"
    )
    housekeeping.prune("default")
    left = set(DeadLetterRun.objects.values_list("pk", flat=True))
    assert left == {run.pk, unfinished.pk}
    assert old.pk not in left


def test_retried_ones_are_found_by_workers(receiver: Receiver) -> None:
    """The lane is told: nothing is left to the sweep's repairs."""
    subscription = subscribe(receiver)
    ids = bury(subscription, 2)
    dead_letters.retry(ids[:1])
    assert Lane.objects.get().claim_at is not None
    deliver()
    dead_letters.begin("retry", Matching())
    deliver()
    assert states() == {"delivered": 2}


# Exports


def exported(answer: Any) -> str:
    assert answer.streaming
    return b"".join(answer.streaming_content).decode()


def test_csv_is_safe_to_open(staff: Staff, receiver: Receiver) -> None:
    for start in "=+-@\t\r":
        bury(subscribe(receiver, f"{start}HYPERLINK(1)"), 1)
    text = exported(staff().get(address("export", form="csv")))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 6
    for row in rows:
        assert row["requester"].startswith("'")
        assert not any(value.startswith(tuple("=+-@\t\r")) for value in row.values())


def test_payloads_are_for_those_who_may_see_them(staff: Staff, receiver: Receiver) -> None:
    subscription = subscribe(receiver)
    subscription.headers = '{"Authorization": "hush-header"}'
    subscription.callback_url += "?token=in-the-query"
    subscription.save()
    bury(subscription)
    weak, strong = staff("view_deadletter"), staff("view_deadletter", "view_payload")
    for form in ("csv", "ndjson"):
        text = exported(weak.get(address("export", form=form)))
        assert "4111" not in text
        assert "payload" not in text
        assert "4111" in exported(strong.get(address("export", form=form)))
        for each in (weak, strong):
            text = exported(each.get(address("export", form=form)))
            assert "hush" not in text
            assert "in-the-query" not in text
    assert weak.get(address("export", form="xlsx")).status_code == 404


def test_ndjson_has_one_object_for_each(staff: Staff, receiver: Receiver) -> None:
    ids = bury(subscribe(receiver), 2)
    bury(subscribe(receiver, "app:b"), 1, "dns_error")
    answer = staff().get(address("export", form="ndjson"), {"reason": "timeout"})
    assert 'filename="dead-letters.ndjson"' in answer["Content-Disposition"]
    rows = [json.loads(line) for line in exported(answer).splitlines()]
    assert {row["delivery"] for row in rows} == set(ids)
    assert tuple(rows[0]) == COLUMNS
    assert json.loads(rows[0]["payload"]) == {"card": 4111}


def test_an_export_is_read_in_chunks(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "CHUNK", 3)
    for i in range(3):
        bury(subscribe(receiver, f"app:{i}"), 4)
    chunks = dead_letters.each(Matching(), with_payload=False)
    with CaptureQueriesContext(connection) as queries:
        assert len(next(chunks)) == 3
    assert len(queries) == 1
    rest = [row.pk for chunk in chunks for row in chunk]
    assert len(set(rest)) == 9


def test_an_export_is_streamed_under_asgi_too(staff: Staff, receiver: Receiver) -> None:
    bury(subscribe(receiver), 2)
    client = AsyncClient()
    client.cookies = staff().cookies

    async def read() -> list[bytes]:
        answer = await client.get(address("export", form="csv"))
        assert answer.is_async
        parts = [part async for part in answer.streaming_content]
        await sync_to_async(connections.close_all)()  # the thread's own
        return parts

    parts = asyncio.run(read())
    assert len(parts) == 2  # the head, and the first chunk
    assert len(b"".join(parts).splitlines()) == 3


# What it costs


def fill(subscriptions: int, each: int) -> Subscription:
    made = Subscription.objects.bulk_create(
        Subscription(requester=f"app:{i}", callback_url="https://h/", status="subscribed")
        for i in range(subscriptions)
    )
    for one in made:
        bury(one, each)
    return made[0]


def test_pages_cost_as_many_statements_for_many_rows_as_for_few(staff: Staff) -> None:
    client = staff()
    first = fill(2, 2)
    pages: list[tuple[str, dict[str, Any]]] = [
        (address(), {}),
        (address(), {"reason": "timeout", "start": "2026-01-01T00:00"}),
        (address(), {"subscription": first.pk, "reason": "timeout", "type": "order.paid"}),
        (address("retry"), {}),
        (address("discard_selected"), {"id": DeadLetter.objects.all()[0].pk}),
    ]

    def cost() -> list[int]:
        found = []
        for url, query in pages:
            with CaptureQueriesContext(connection) as queries:
                html_of(client, url, **query)
            found.append(len(queries))
        return found

    cost()  # what is read once
    few = cost()
    fill(60, 3)
    bury(first, 200)
    assert cost() == few
    assert max(few) <= 12


def test_counts_stop_at_a_limit(
    staff: Staff, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    if connection.vendor == "mysql":
        pytest.skip("MariaDB knows no limit in a count of that kind")
    monkeypatch.setattr("webhooks.health.MOST_COUNTED", 5)
    monkeypatch.setattr("webhooks.health.verdicts.MOST_COUNTED", 5)
    bury(subscribe(receiver), 9)
    assert counts(page(staff())) == ["5+"]


def test_a_preview_counts_up_to_a_limit_and_says_so(
    staff: Staff, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    bury(subscribe(receiver), 5)
    client = staff()
    assert "Preview: 5 dead letters" in html_of(client, address("retry"))
    monkeypatch.setattr(dead_letters, "LOOKED_THROUGH", 3)
    html = html_of(client, address("retry"))
    assert "Preview: 3+ dead letters" in html
    assert "Counted among the first 3; all that match are meant." in html


def test_a_place_survives_the_row_that_keeps_it(receiver: Receiver) -> None:
    [pk] = bury(subscribe(receiver))
    place = DeadLetter.objects.get(pk=pk).place
    assert Place.of(json.loads(json.dumps(place.as_list()))) == place
    for text in (["a"], ["sub", "x", "no time", "dlv"], ["sub", "x", "2026-01-01", "dlv"]):
        with pytest.raises(ValueError, match=r".+"):
            Place.of(text)


def test_an_emitted_event_that_died_is_there(staff: Staff, receiver: Receiver) -> None:
    from tests.world import Answer

    receiver.answer = Answer(status=500)
    subscribe(receiver, retry_schedule=[])
    emit("order.paid", {"order": 1}, requester="app:a")
    deliver()
    html = page(staff())
    assert counts(html) == ["1"]
    assert "<code>server_error</code>" in html
