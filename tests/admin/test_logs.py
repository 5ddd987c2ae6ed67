"""The admin's pages: all of them open, the logs are only read, and no secret is ever shown."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from tests.admin.browsing import (
    EVIL,
    HUSH,
    LOGS,
    Form,
    html_of,
    populate,
    shows,
    submit,
    url_of,
)
from webhooks import emit, lifecycle
from webhooks.admin import pages
from webhooks.models import (
    Delivery,
    DeliveryAttempt,
    DeliveryStats,
    Event,
    Lane,
    Message,
    Subscription,
)
from webhooks.models.fields import first_id_of

pytestmark = pytest.mark.django_db


# Every page


def test_each_model_has_a_page_but_secrets() -> None:
    ours = {m.__name__ for m in admin.site._registry if m._meta.app_label == "webhooks"}
    site_pages = {"WebhookHealth", "DeadLetter", "WorkersAndSchedules"}
    assert ours == {model.__name__ for model in LOGS} | {"Subscription"} | site_pages


@pytest.mark.parametrize("model", [*LOGS, Subscription], ids=lambda model: model.__name__)
def test_every_list_and_every_row_opens(staff: Any, model: Any) -> None:
    populate(2)
    client = staff()
    listed = html_of(client, url_of(model))
    rows = list(model.objects.all())
    assert rows
    for row in rows:
        assert shows(listed, model, row.pk)
        html_of(client, url_of(model, "change", row.pk))


def test_the_index_opens_and_names_them_all(staff: Any) -> None:
    html = html_of(staff(), reverse("admin:index"))
    for model in [*LOGS, Subscription]:
        assert url_of(model) in html


@pytest.mark.parametrize("model", [*LOGS, Subscription], ids=lambda model: model.__name__)
def test_an_empty_list_opens(staff: Any, model: Any) -> None:
    html_of(staff(), url_of(model))


@pytest.mark.parametrize("model", [*LOGS, Subscription], ids=lambda model: model.__name__)
def test_nobody_without_permission_sees_a_page(staff: Any, model: Any) -> None:
    populate()
    client = staff("view_payload")
    html_of(client, url_of(model), status=403)
    html_of(client, url_of(model, "change", model.objects.first().pk), status=403)


@pytest.mark.parametrize("model", [Event, Delivery, Subscription, DeliveryAttempt])
def test_an_id_that_is_none_leads_back_and_not_to_an_error(staff: Any, model: Any) -> None:
    client = staff()
    for wrong in ("nonsense", "evt_7", "7"):
        assert client.get(url_of(model, "change", wrong)).status_code == 302


# Only read


@pytest.mark.parametrize("model", LOGS, ids=lambda model: model.__name__)
def test_a_log_is_neither_written_nor_deleted_even_by_a_superuser(staff: Any, model: Any) -> None:
    populate()
    client = staff()
    row = model.objects.first()
    html_of(client, url_of(model, "add"), status=403)
    html_of(client, url_of(model, "delete", row.pk), status=403)
    html = html_of(client, url_of(model, "change", row.pk))
    assert 'name="_save"' not in html
    assert "deletelink" not in html
    before = model.objects.values().get(pk=row.pk)
    assert client.post(url_of(model, "change", row.pk), {"type": "x"}).status_code == 403
    action = {"action": "delete_selected", "_selected_action": [str(row.pk)], "post": "yes"}
    client.post(url_of(model), action)
    assert model.objects.values().get(pk=row.pk) == before
    assert "delete_selected" not in html_of(client, url_of(model))


def test_a_subscription_is_not_deleted(staff: Any) -> None:
    subscription = populate()
    client = staff()
    html_of(client, url_of(Subscription, "delete", subscription.pk), status=403)
    action = {
        "action": "delete_selected",
        "_selected_action": [subscription.pk],
        "post": "yes",
    }
    client.post(url_of(Subscription), action)
    assert Subscription.objects.count() == 1


# Nothing that is secret, nothing that runs


def every_page() -> list[str]:
    urls = [reverse("admin:index")]
    for model in [*LOGS, Subscription]:
        urls.append(url_of(model))
        urls += [url_of(model, "change", row.pk) for row in model.objects.all()]
    subscription = Subscription.objects.get()
    urls.append(url_of(Subscription, "history", subscription.pk))
    return urls


def test_no_page_shows_a_secret(staff: Any) -> None:
    subscription = populate()
    secrets = [secret.value.reveal() for secret in subscription.secrets.all()]
    client = staff()
    for url in every_page():
        html = html_of(client, url)
        for hush in (*HUSH, *secrets):
            assert hush not in html, url
    page = html_of(client, url_of(Subscription, "change", subscription.pk))
    for secret in secrets:
        assert secret[-4:] in page  # the last four tell them apart


def test_no_list_shows_the_query_of_a_url(staff: Any) -> None:
    populate()
    client = staff()
    for model in [*LOGS, Subscription]:
        assert "in-the-query" not in html_of(client, url_of(model)), model


def test_everything_from_outside_is_escaped(staff: Any) -> None:
    populate()
    client = staff()
    for url in every_page():
        assert EVIL not in html_of(client, url), url
    attempt = DeliveryAttempt.objects.first()
    assert attempt is not None
    page = html_of(client, url_of(DeliveryAttempt, "change", attempt.pk))
    assert "answer-&lt;script&gt;" in page


@pytest.mark.parametrize(("model", "payload"), [(Event, "4111-"), (DeliveryAttempt, "answer-")])
def test_payloads_are_for_those_who_may_see_them(staff: Any, model: Any, payload: str) -> None:
    populate()
    view = f"view_{model._meta.model_name}"
    page = url_of(model, "change", model.objects.first().pk)
    without = html_of(staff(view), page)
    assert payload not in without
    assert "Can see payloads" in without
    assert payload in html_of(staff(view, "view_payload"), page)
    assert payload not in html_of(staff(view, "view_payload"), url_of(model))


def test_no_other_page_shows_a_payload(staff: Any) -> None:
    populate()
    client = staff()
    for model in [*LOGS, Subscription]:
        urls = [url_of(model)]
        if model not in (Event, Delivery, DeliveryAttempt):
            urls += [url_of(model, "change", row.pk) for row in model.objects.all()]
        for url in urls:
            html = html_of(client, url)
            assert "4111-" not in html, url
            assert "answer-" not in html, url


# Large tables


@pytest.mark.parametrize("model", [*LOGS, Subscription], ids=lambda model: model.__name__)
def test_a_list_takes_as_many_queries_for_many_rows_as_for_few(staff: Any, model: Any) -> None:
    client = staff()
    populate(2)
    html_of(client, url_of(model))  # what is cached is cached
    with CaptureQueriesContext(connection) as few:
        html_of(client, url_of(model))
    populate(9)
    with CaptureQueriesContext(connection) as many:
        html_of(client, url_of(model))
    assert len(many) == len(few) <= 8


@pytest.mark.parametrize("model", [*LOGS, Subscription], ids=lambda model: model.__name__)
def test_no_list_counts_sorts_or_joins_a_whole_table(staff: Any, model: Any) -> None:
    populate(2)
    with CaptureQueriesContext(connection) as captured:
        html_of(staff(), url_of(model))
    own = [q["sql"] for q in captured if f"webhooks_{model._meta.model_name}" in q["sql"]]
    assert own
    for sql in own:
        if "COUNT(" in sql:
            assert f"LIMIT {pages.CAP}" in sql
        if model in (Event, Delivery, Message, DeliveryAttempt):
            assert ">=" in sql  # the last 24 hours
        assert "DISTINCT" not in sql


@pytest.mark.parametrize(
    ("model", "heavy"),
    [
        (Event, ["data"]),
        (Delivery, ["data", "headers", "basic_auth"]),
        (Message, ["headers", "basic_auth"]),
        (DeliveryAttempt, ["excerpt"]),
        (Lane, ["headers", "basic_auth"]),
        (Subscription, ["headers", "basic_auth"]),
    ],
)
def test_a_list_does_not_read_what_it_does_not_show(
    staff: Any, model: Any, heavy: list[str]
) -> None:
    populate(2)
    with CaptureQueriesContext(connection) as captured:
        html_of(staff(), url_of(model))
    quoted = connection.ops.quote_name
    for query in captured:
        for column in heavy:
            assert f".{quoted(column)}" not in query["sql"]


def test_a_count_goes_no_further_than_it_must(staff: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "CAP", 3)
    populate(9)
    assert "3 events" in html_of(staff(), url_of(Event))


@pytest.mark.parametrize("model", [Event, Delivery, Message, DeliveryAttempt])
def test_a_list_shows_the_last_day_unless_it_is_asked_for_more(staff: Any, model: Any) -> None:
    populate()
    client = staff()
    row = model.objects.first()
    prefix = model._meta.pk.prefix
    values = {
        field.attname: getattr(row, field.attname)
        for field in model._meta.concrete_fields
        if not field.primary_key
    }
    values.pop("event_id", None)
    old = {}
    for days in (2, 8, 31):
        old[days] = first_id_of(timezone.now() - timedelta(days=days), prefix)
        if model is Delivery:
            values["event_id"] = emit("order.paid", {}, requester="app:shop").pk
        model.objects.create(pk=old[days], **values)

    def shown(**query: Any) -> list[int]:
        html = html_of(client, url_of(model), **query)
        assert shows(html, model, row.pk)
        return [days for days, pk in old.items() if shows(html, model, pk)]

    assert shown() == []
    assert shown(since="7d") == [2]
    assert shown(since="30d") == [2, 8]
    assert shown(since="all") == [2, 8, 31]
    assert shown(since="nonsense") == []
    html = html_of(client, url_of(model), q=old[31])
    assert shows(html, model, old[31])  # who has an id does not know its day
    assert not shows(html, model, row.pk)


def test_the_default_span_says_what_it_is(staff: Any) -> None:
    assert "Last 24 hours" in html_of(staff(), url_of(Event))


@pytest.mark.parametrize(
    ("model", "by"),
    [
        (Event, ["pk"]),
        (Delivery, ["pk", "event_id", "subscription_id", "message_id"]),
        (Message, ["pk", "subscription_id"]),
        (DeliveryAttempt, ["pk", "message_id", "subscription_id"]),
        (DeliveryStats, ["subscription_id"]),
        (Lane, ["pk"]),
        (Subscription, ["pk"]),
    ],
)
def test_a_search_is_for_an_exact_id(staff: Any, model: Any, by: list[str]) -> None:
    populate(2)
    client = staff()
    row = model.objects.order_by("pk").last()
    for column in by:
        term = getattr(row, column)
        html = html_of(client, url_of(model), q=f" {term} ")
        assert shows(html, model, row.pk), column
    for wrong in ("order", term[:-1], term.upper(), "%", "sub_" + "0" * 31 + "1", EVIL, "x" * 5000):
        html = html_of(client, url_of(model), q=wrong)
        assert not shows(html, model, row.pk), wrong


def test_events_are_filtered_by_the_types_of_the_catalogue(staff: Any) -> None:
    populate()
    shipped = emit("order.shipped", {}, requester="app:shop")
    html = html_of(staff(), url_of(Event), type="order.shipped")
    assert shows(html, Event, shipped.pk)
    assert html.count("field-requester") == 1


def test_what_the_whole_service_did_is_named(staff: Any) -> None:
    populate()
    assert "the whole service" in html_of(staff(), url_of(DeliveryStats))


def test_an_attempt_of_a_subscription_that_is_gone_is_still_shown(staff: Any) -> None:
    populate()
    attempt = DeliveryAttempt.objects.first()
    assert attempt is not None
    DeliveryAttempt.objects.filter(pk=attempt.pk).update(subscription_id="sub_" + "1" * 32)
    client = staff()
    assert shows(html_of(client, url_of(DeliveryAttempt)), DeliveryAttempt, attempt.pk)
    assert "sub_1111" in html_of(client, url_of(DeliveryAttempt, "change", attempt.pk))


# Subscriptions


def add(client: Client, **asked: Any) -> Any:
    wanted = {
        "requester": "app:new",
        "callback_url": "http://127.0.0.1:9/new",
        "event_types": '["order.paid"]',
    }
    return submit(client, url_of(Subscription, "add"), **{**wanted, **asked})


def test_a_new_subscription_is_whole_and_its_secret_is_shown_once(staff: Any) -> None:
    client = staff()
    answer = add(client, description="by hand")
    assert answer.status_code == 200
    subscription = Subscription.objects.get()
    assert (subscription.requester, subscription.status) == ("app:new", "subscribed")
    assert subscription.event_types == ["order.paid"]
    assert (subscription.description, subscription.metadata) == ("by hand", {})
    assert Lane.objects.get().pk == subscription.pk
    secret = subscription.secrets.get().value.reveal()
    assert secret in answer.content.decode()
    assert "no-store" in answer.headers["Cache-Control"]
    # Neither a cookie nor the session keeps it.
    assert set(answer.cookies) <= {"csrftoken", "sessionid"}
    assert secret not in str([session.get_decoded() for session in Session.objects.all()])
    assert url_of(Subscription, "change", subscription.pk) in answer.content.decode()
    for url in every_page():
        assert secret not in html_of(client, url), url


def test_the_history_of_a_new_subscription_has_no_secret(staff: Any) -> None:
    add(staff(), callback_url="http://127.0.0.1:9/new?token=in-the-query")
    [entry] = LogEntry.objects.all()
    secret = Subscription.objects.get().secrets.get().value.reveal()
    told = f"{entry.object_repr} {entry.change_message} {entry.get_change_message()}"
    assert secret not in told
    assert "in-the-query" not in told
    assert entry.object_id == Subscription.objects.get().pk


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("callback_url", "http://10.0.0.1/", ""),
        ("callback_url", "", "required"),
        ("event_types", '["order.pain"]', "order.paid"),
        ("event_types", "nonsense", "valid JSON"),
        ("requester", "", "required"),
        ("metadata", "[1]", "JSON object"),
        ("retry_schedule", "[0]", "seconds"),
        ("max_in_flight", "0", ""),
    ],
)
def test_a_bad_subscription_is_refused_beside_its_field(
    staff: Any, field: str, value: str, told: str
) -> None:
    answer = add(staff(), **{field: value})
    assert answer.status_code == 200
    assert field in answer.context["adminform"].form.errors
    assert told in str(answer.context["adminform"].form.errors[field])
    assert not Subscription.objects.exists()


def test_the_limit_of_subscriptions_is_told_in_the_form(staff: Any, settings: Any) -> None:
    settings.WEBHOOKS = {**settings.WEBHOOKS, "MAX_SUBSCRIPTIONS": 1}
    client = staff()
    assert add(client).status_code == 200
    answer = add(client)
    assert answer.status_code == 200
    assert "Unsubscribe one" in str(answer.context["adminform"].form.errors)
    assert Subscription.objects.count() == 1


def test_an_edit_is_told_to_who_holds_the_lane(staff: Any) -> None:
    subscription = populate()
    Subscription.objects.update(headers="", basic_auth="")
    control = Lane.objects.get().control
    page = url_of(Subscription, "change", subscription.pk)
    answer = submit(staff(), page, callback_url="http://127.0.0.1:9/b", ordered="on")
    assert answer.status_code == 302
    row = Subscription.objects.get()
    assert (row.callback_url, row.ordered) == ("http://127.0.0.1:9/b", True)
    assert Lane.objects.get().control == control + 1


def test_saving_without_a_change_tells_nobody(staff: Any) -> None:
    subscription = populate()
    Subscription.objects.update(headers="", basic_auth="")
    before = Subscription.objects.values().get()
    lane = Lane.objects.values().get()
    assert submit(staff(), url_of(Subscription, "change", subscription.pk)).status_code == 302
    assert Subscription.objects.values().get() == before
    assert Lane.objects.values().get() == lane


def test_an_edit_writes_no_more_than_was_edited(staff: Any) -> None:
    subscription = populate()
    Subscription.objects.update(headers="", basic_auth="")
    client = staff()
    page = url_of(Subscription, "change", subscription.pk)
    form = Form(html_of(client, page)).data
    lifecycle.change_status(subscription, "suspended", reason="operator")
    form["description"] = "new"
    assert client.post(page, form).status_code == 302
    row = Subscription.objects.get()
    assert row.description == "new"
    assert row.status == "suspended"


def test_what_is_not_plain_cannot_be_posted(staff: Any) -> None:
    subscription = populate()
    Subscription.objects.update(headers="", basic_auth="")
    client = staff()
    page = url_of(Subscription, "change", subscription.pk)
    sent = {
        **Form(html_of(client, page)).data,
        **{"status": "unsubscribed", "requester": "app:evil", "headers": "x", "basic_auth": "x"},
        **{"lane-0-held": "on", "lane-0-claim_at_0": "2020-01-01", "lane-0-control": "99"},
        **{"secrets-0-value": "whsec_x", "secrets-0-last_four": "xxxx", "secrets-0-DELETE": "on"},
        **{"lane-0-DELETE": "on", "trigger": "hourly"},
    }
    before = (Subscription.objects.values().get(), Lane.objects.values().get())
    secrets = list(subscription.secrets.values())
    assert client.post(page, sent).status_code == 302
    assert (Subscription.objects.values().get(), Lane.objects.values().get()) == before
    assert list(subscription.secrets.values()) == secrets


def test_a_fault_in_a_field_that_the_form_has_not_is_told_and_not_an_error(
    staff: Any,
) -> None:
    subscription = populate()
    Subscription.objects.update(headers="", basic_auth="", time_zone="Mars/Base")
    answer = submit(staff(), url_of(Subscription, "change", subscription.pk), description="new")
    assert answer.status_code == 200
    assert "no time zone" in str(answer.context["adminform"].form.errors)


def test_a_name_that_stops_resolving_is_told_and_not_an_error(
    staff: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.core.exceptions import ValidationError

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise ValidationError("It no longer resolves.")

    subscription = populate()
    Subscription.objects.update(headers="", basic_auth="")
    monkeypatch.setattr(lifecycle, "update", refuse)
    client = staff()
    page = url_of(Subscription, "change", subscription.pk)
    answer = submit(client, page, description="new")
    assert answer.status_code == 302
    assert "It no longer resolves." in html_of(client, answer.url)


def test_who_may_only_look_sees_no_form(staff: Any) -> None:
    subscription = populate()
    client = staff("view_subscription")
    page = url_of(Subscription, "change", subscription.pk)
    html = html_of(client, page)
    assert 'name="callback_url"' not in html
    assert client.post(page, {"description": "new"}).status_code == 403
    html_of(client, url_of(Subscription, "add"), status=403)
    for hush in HUSH:
        assert hush not in html
