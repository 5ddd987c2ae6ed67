"""Column types: ids that sort by time and have one form, and texts that show nothing."""

from __future__ import annotations

import re
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.shop.models import Order
from webhooks import emit, emit_many
from webhooks.crypto import Sealed
from webhooks.models import Event, Lane, Subscription, fields

WHOM = "app:shop"


# Time-sortable ids


def test_an_id_is_a_uuid_of_version_7() -> None:
    made = uuid.UUID(int=fields.uuid7())
    assert made.version == 7
    assert made.variant == uuid.RFC_4122


def test_an_id_holds_the_time_it_was_made() -> None:
    before = time.time_ns() // 1_000_000
    made = fields.uuid7() >> 80
    assert before <= made <= time.time_ns() // 1_000_000 + 50


def test_ids_of_a_process_never_go_back() -> None:
    made = [fields.uuid7() for _ in range(50_000)]
    assert made == sorted(made)
    assert len({each >> 64 for each in made}) == len(made)  # by their time alone, without chance


def test_ids_do_not_go_back_when_the_clock_does(monkeypatch: pytest.MonkeyPatch) -> None:
    first = fields.uuid7()
    hour_ago = time.time_ns() - 3_600_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: hour_ago)
    made = [first, *(fields.uuid7() for _ in range(5000))]
    assert made == sorted(set(made))
    assert all(uuid.UUID(int=each).version == 7 for each in made)


def test_ids_of_many_threads_are_all_different() -> None:
    made: list[int] = []
    threads = [
        threading.Thread(target=lambda: made.extend(fields.uuid7() for _ in range(5000)))
        for _ in range(4)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len({value >> 64 for value in made}) == 20_000


@pytest.mark.parametrize(
    ("make", "prefix"),
    [
        (fields.new_subscription_id, "sub"),
        (fields.new_secret_id, "sec"),
        (fields.new_event_id, "evt"),
        (fields.new_delivery_id, "dlv"),
        (fields.new_message_id, "msg"),
        (fields.new_attempt_id, "att"),
    ],
)
def test_an_id_has_one_form(make: Any, prefix: str) -> None:
    assert re.fullmatch(rf"{prefix}_[0-9a-f]{{32}}", make())


def test_the_first_id_of_a_moment_stands_before_all_that_were_made_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moment = datetime(2040, 5, 6, 7, 8, 9, 123_000, tzinfo=UTC)
    first = fields.first_id_of(moment, "evt")
    ns = int(moment.timestamp() * 1000) * 1_000_000
    for offset, after in ((0, True), (999_999, True), (-1_000_000, False)):
        monkeypatch.setattr(fields, "_last", 0)
        monkeypatch.setattr(time, "time_ns", lambda offset=offset: ns + offset)
        assert (fields.new_event_id() >= first) is after
    assert len(first) == 36
    monkeypatch.undo()


@pytest.mark.django_db
def test_the_database_sorts_ids_as_they_were_made() -> None:
    made = [emit("order.paid", {}, requester=WHOM).pk for _ in range(50)]
    made += [e.pk for e in emit_many("order.paid", [{"data": {}, "requester": WHOM}] * 50)]
    assert list(Event.objects.order_by("pk").values_list("pk", flat=True)) == made


@pytest.mark.django_db
def test_the_database_compares_ids_with_the_first_of_a_moment() -> None:
    event = emit("order.paid", {}, requester=WHOM)
    now = datetime.now(UTC)
    for age, found in ((timedelta(minutes=1), True), (timedelta(minutes=-1), False)):
        first = fields.first_id_of(now - age, "evt")
        assert Event.objects.filter(pk__gte=first).exists() is found
        assert Event.objects.filter(pk__lt=first).exists() is not found
    assert event.pk > fields.first_id_of(now - timedelta(days=1), "evt")


def test_before_the_first_moment_of_all_there_is_no_smaller_id() -> None:
    for year in (1969, 1970):
        assert fields.first_id_of(datetime(year, 1, 1, tzinfo=UTC), "evt") == "evt_" + "0" * 32


# One form in, one form out


@pytest.mark.django_db
def test_an_id_is_found_in_every_form_and_shown_in_one() -> None:
    pk = emit("order.paid", {}, requester=WHOM).pk
    bare = pk.removeprefix("evt_")
    for form in (pk, bare, bare.upper(), str(uuid.UUID(bare)), uuid.UUID(bare)):
        assert Event.objects.get(pk=form).pk == pk
        assert Event.objects.get(pk__in=[form]).pk == pk
    assert Event.objects.values_list("pk", flat=True).get() == pk
    assert Event.objects.get().serializable_value("pk") == pk


@pytest.mark.django_db
@pytest.mark.parametrize(
    "wrong", ["", "evt_", "evt_7", "7", 7, "evt_" + "g" * 32, "evt_" + "0" * 33, "evtx", [], {}]
)
def test_what_is_no_id_is_refused(wrong: Any) -> None:
    with pytest.raises(ValidationError):
        Event.objects.filter(pk=wrong).exists()


@pytest.mark.django_db
def test_an_id_of_another_kind_is_refused() -> None:
    pk = emit("order.paid", {}, requester=WHOM).pk
    with pytest.raises(ValidationError, match="evt_"):
        Event.objects.filter(pk=pk.replace("evt_", "sub_")).exists()


def test_an_error_shows_little_of_a_long_text() -> None:
    with pytest.raises(ValidationError) as raised:
        Event._meta.pk.to_python("x" * 100_000)
    assert len(str(raised.value)) < 300


def test_a_migration_can_rebuild_the_field() -> None:
    field = Event._meta.pk
    _name, path, args, kwargs = field.deconstruct()
    again = fields.PrefixedIdField(*args, **kwargs)
    assert path == "webhooks.models.fields.PrefixedIdField"
    assert again.prefix == "evt"


# pk__any


@pytest.mark.django_db
def test_any_finds_those_of_a_list() -> None:
    pks = [emit("order.paid", {}, requester=WHOM).pk for _ in range(5)]
    some = [pks[0], pks[3], fields.new_event_id()]
    assert set(Event.objects.filter(pk__any=some).values_list("pk", flat=True)) == {pks[0], pks[3]}
    assert Event.objects.filter(pk__any=set(pks)).count() == 5
    assert Event.objects.exclude(pk__any=some).count() == 3
    assert Event.objects.filter(pk__any=some, type="order.paid").count() == 2


@pytest.mark.django_db
def test_any_of_nothing_is_nothing() -> None:
    emit("order.paid", {}, requester=WHOM)
    assert not Event.objects.filter(pk__any=[]).exists()
    assert Event.objects.exclude(pk__any=[]).count() == 1


@pytest.mark.django_db
def test_any_takes_a_thousand_and_updates_and_deletes() -> None:
    made = emit_many("order.paid", [{"data": {}, "requester": WHOM}] * 600)
    pks = [event.pk for event in made]
    assert Event.objects.filter(pk__any=pks).update(subject="x") == 600
    assert Event.objects.filter(pk__any=pks[:500]).delete()[0] == 500


@pytest.mark.postgres
@pytest.mark.django_db
def test_any_is_one_parameter_on_postgresql() -> None:
    with CaptureQueriesContext(connection) as captured:
        list(Event.objects.filter(pk__any=[fields.new_event_id() for _ in range(3)]))
    assert "= ANY(" in captured[0]["sql"]


@pytest.mark.django_db
def test_any_works_on_the_key_of_a_lane() -> None:
    subscription, _secret = Subscription.objects.subscribe(
        requester=WHOM, callback_url="http://127.0.0.1:9/", event_types=["*"]
    )
    assert Lane.objects.get(pk__any=[subscription.pk]).pk == subscription.pk


# Sealed texts


@pytest.fixture
def sealed() -> Subscription:
    subscription, _secret = Subscription.objects.subscribe(
        requester=WHOM, callback_url="http://127.0.0.1:9/", event_types=["*"]
    )
    subscription.headers = '{"Authorization": "Bearer hush-hush"}'
    subscription.save()
    return Subscription.objects.get()


@pytest.mark.django_db
def test_a_sealed_text_is_not_in_the_database(sealed: Subscription) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT headers FROM webhooks_subscription")
        [stored] = cursor.fetchone()
    assert stored
    assert "hush" not in stored
    assert stored.startswith("gAAAA")  # a Fernet token


@pytest.mark.django_db
def test_a_sealed_text_shows_nothing_by_itself(sealed: Subscription) -> None:
    value: Any = sealed.headers
    assert isinstance(value, Sealed)
    for shown in (
        repr(value),
        str(value),
        f"{value}",
        f"{value!s:>20}",
        repr([value]),
        "{}".format(value),  # noqa: UP032
    ):
        assert "hush" not in shown
        assert value.ciphertext not in shown
    assert value.reveal() == '{"Authorization": "Bearer hush-hush"}'


@pytest.mark.django_db
def test_a_sealed_text_survives_being_saved_again(sealed: Subscription) -> None:
    before: Any = sealed.headers
    sealed.save()
    again = Subscription.objects.get()
    after: Any = again.headers
    assert after == before
    assert again.basic_auth == ""
    assert after.reveal() == before.reveal()


@pytest.mark.django_db
def test_an_empty_text_is_not_sealed_and_reads_as_empty() -> None:
    subscription, _secret = Subscription.objects.subscribe(
        requester=WHOM, callback_url="http://127.0.0.1:9/", event_types=["*"]
    )
    value: Any = Subscription.objects.get(pk=subscription.pk).headers
    assert not value
    assert value == ""
    assert value.reveal() == ""


@pytest.mark.django_db
def test_a_subscription_that_was_read_is_still_valid() -> None:
    Subscription.objects.subscribe(
        requester=WHOM, callback_url="http://127.0.0.1:9/", event_types=["*"]
    )
    Subscription.objects.get().full_clean()


@pytest.mark.django_db
def test_a_secret_shows_its_last_four_alone() -> None:
    subscription, text = Subscription.objects.subscribe(
        requester=WHOM, callback_url="http://127.0.0.1:9/", event_types=["*"]
    )
    [secret] = subscription.secrets.all()
    assert str(secret) == f"…{text[-4:]}"
    assert text not in repr(secret)
    assert text[:-4] not in str(vars(secret))
    assert secret.value.reveal() == text


@pytest.mark.django_db
def test_a_host_model_is_not_touched_by_our_lookups() -> None:
    order = Order.objects.create(number="1")
    assert Order.objects.filter(pk__in=[order.pk]).exists()
