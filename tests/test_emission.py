"""Emission: one INSERT in the caller's transaction, refused before any SQL or not at all."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils.functional import lazy

import webhooks
from tests.shop.models import Order
from webhooks import aemit, catalog, emit, emit_many
from webhooks.exceptions import (
    IdempotencyConflict,
    InvalidEvent,
    InvalidPayload,
    UnknownEventType,
    WrongDatabase,
)
from webhooks.models import Event
from webhooks.receivers import record_event
from webhooks.signals import event_recorded, webhook_event

WHOM = "app:shop"


def nested(depth: int) -> dict[str, Any]:
    data: Any = 1
    for _ in range(depth):
        data = [data]
    return {"a": data}


def circular() -> dict[str, Any]:
    data: dict[str, Any] = {}
    data["itself"] = data
    return data


lazystr = lazy(lambda mapping: str(list(mapping)), str)


@contextmanager
def listening(signal: Any, receiver: Callable[..., Any]) -> Iterator[None]:
    signal.connect(receiver, weak=False)
    try:
        yield
    finally:
        signal.disconnect(receiver)


@contextmanager
def rolled_back() -> Iterator[None]:
    """A transaction, or a savepoint of the one around it, that is rolled back at its end."""
    with suppress(ZeroDivisionError), transaction.atomic():
        yield
        raise ZeroDivisionError


@contextmanager
def failing_inserts() -> Iterator[None]:
    """The outbox cannot be written; everything else can."""

    def refuse(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith("INSERT") and "webhooks_event" in sql:
            raise OperationalError("the disk is full")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(refuse):
        yield


# One row in the caller's transaction


@pytest.mark.django_db
def test_an_event_costs_exactly_one_insert(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1) as captured:
        emit("order.paid", {"order": 1}, requester=WHOM)
    assert captured[0]["sql"].startswith("INSERT INTO")


@pytest.mark.django_db(transaction=True)
def test_an_event_without_transaction_costs_exactly_one_insert() -> None:
    with CaptureQueriesContext(connection) as captured:
        emit("order.paid", {"order": 1}, requester=WHOM)
    written = [q["sql"] for q in captured if q["sql"] not in ("BEGIN", "COMMIT")]
    assert [sql.split()[0] for sql in written] == ["INSERT"]
    assert Event.objects.count() == 1


@pytest.mark.django_db
def test_the_row_holds_what_was_said() -> None:
    then = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    made = emit(
        "order.paid",
        {"b": "é \U0001f600", "a": Decimal("1.50"), "at": then},
        requester=WHOM,
        subject="order:7",
        occurred_at=then,
        idempotency_key="k",
    )
    row = Event.objects.get(pk=made.pk)
    assert (row.type, row.requester, row.subject) == ("order.paid", WHOM, "order:7")
    assert (row.occurred_at, row.idempotency_key) == (then, "k")
    assert row.data == '{"b":"é \U0001f600","a":"1.50","at":"2026-01-02T03:04:05.678Z"}'
    assert (row.seq, row.fanned_out_at) == (None, None)
    assert made.pk.startswith("evt_")


@pytest.mark.django_db
def test_the_payload_is_frozen_at_emission() -> None:
    data = {"items": [1]}
    made = emit("order.paid", data, requester=WHOM)
    data["items"].append(2)
    assert Event.objects.get(pk=made.pk).payload == {"items": [1]}


@pytest.mark.django_db
def test_an_event_for_everyone_needs_no_requester() -> None:
    assert emit("shop.closed", {"day": "Monday"}).requester == ""


@pytest.mark.django_db(transaction=True)
def test_what_is_rolled_back_is_not_emitted() -> None:
    with rolled_back():
        emit("order.paid", {"order": 1}, requester=WHOM)
        emit_many("order.paid", [{"data": {}, "requester": WHOM}])
    assert not Event.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_what_a_savepoint_rolls_back_is_not_emitted() -> None:
    with transaction.atomic():
        emit("order.paid", {"order": 1}, requester=WHOM)
        with rolled_back():
            emit("order.paid", {"order": 2}, requester=WHOM)
        emit("order.paid", {"order": 3}, requester=WHOM)
    assert [event.payload["order"] for event in Event.objects.order_by("pk")] == [1, 3]


@pytest.mark.django_db(transaction=True)
def test_a_row_and_its_event_commit_together() -> None:
    with transaction.atomic():
        Order.objects.create(number="1")
        emit("order.paid", {"order": 1}, requester=WHOM)
        seen: list[int] = []

        def look() -> None:  # another connection sees neither
            seen.extend([Order.objects.count(), Event.objects.count()])
            connection.close()

        thread = threading.Thread(target=look)
        thread.start()
        thread.join(20)
    assert seen == [0, 0]
    assert (Order.objects.count(), Event.objects.count()) == (1, 1)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "say",
    [
        lambda: emit("order.paid", {}, requester=WHOM),
        lambda: emit("order.paid", {}, requester=WHOM, idempotency_key="k"),
        lambda: emit_many("order.paid", [{"data": {}, "requester": WHOM, "idempotency_key": "k"}]),
    ],
)
def test_an_insert_that_fails_takes_the_business_write_with_it(say: Callable[[], Any]) -> None:
    @transaction.atomic
    def host() -> None:
        Order.objects.create(number="1")
        say()

    with failing_inserts(), pytest.raises(OperationalError, match="disk is full"):
        host()
    assert not Order.objects.exists()


@pytest.mark.django_db
def test_a_single_write_error_cannot_be_overlooked() -> None:
    """Even a host that swallows the error does not commit without the event."""
    with failing_inserts(), transaction.atomic():
        with suppress(OperationalError):
            emit("order.paid", {}, requester=WHOM)
        assert connection.needs_rollback
        transaction.set_rollback(False)


# Refused before any SQL

THE_END = datetime.max.replace(tzinfo=timezone(-timedelta(hours=12)))

REFUSED: dict[str, tuple[type[Exception], Callable[[], Any]]] = {
    "an unknown type": (UnknownEventType, lambda: emit("order.pain", {}, requester=WHOM)),
    "no type": (UnknownEventType, lambda: emit(None, {}, requester=WHOM)),  # type: ignore[arg-type]
    "a list as type": (
        UnknownEventType,
        lambda: emit(["order.paid"], {}, requester=WHOM),  # type: ignore[arg-type]
    ),
    "no requester": (InvalidEvent, lambda: emit("order.paid", {})),
    "an empty requester": (InvalidEvent, lambda: emit("order.paid", {}, requester="")),
    "a number as requester": (
        InvalidEvent,
        lambda: emit("order.paid", {}, requester=7),  # type: ignore[arg-type]
    ),
    "a long requester": (InvalidEvent, lambda: emit("order.paid", {}, requester="x" * 256)),
    "a control character in the requester": (
        InvalidEvent,
        lambda: emit("order.paid", {}, requester="app:\x00"),
    ),
    "a line break in the subject": (
        InvalidEvent,
        lambda: emit("order.paid", {}, requester=WHOM, subject="a\nb"),
    ),
    "a lone surrogate in the subject": (
        InvalidEvent,
        lambda: emit("order.paid", {}, requester=WHOM, subject="\ud800"),
    ),
    "a long subject": (
        InvalidEvent,
        lambda: emit("order.paid", {}, requester=WHOM, subject="x" * 256),
    ),
    "a control character in the key": (
        InvalidEvent,
        lambda: emit("order.paid", {}, requester=WHOM, idempotency_key="a\x7f"),
    ),
    "an empty key": (
        InvalidEvent,
        lambda: emit("order.paid", {}, requester=WHOM, idempotency_key=""),
    ),
    "a naive time": (
        InvalidEvent,
        lambda: emit("order.paid", {}, requester=WHOM, occurred_at=datetime(2026, 1, 1)),
    ),
    "a text as time": (
        InvalidEvent,
        lambda: emit("order.paid", {}, requester=WHOM, occurred_at="now"),  # type: ignore[arg-type]
    ),
    "NaN": (InvalidPayload, lambda: emit("order.paid", {"a": float("nan")}, requester=WHOM)),
    "Infinity": (InvalidPayload, lambda: emit("order.paid", {"a": float("inf")}, requester=WHOM)),
    "-Infinity in depth": (
        InvalidPayload,
        lambda: emit("order.paid", {"a": [{"b": -float("inf")}]}, requester=WHOM),
    ),
    "NaN as key": (InvalidPayload, lambda: emit("order.paid", {float("nan"): 1}, requester=WHOM)),
    "a lone surrogate": (
        InvalidPayload,
        lambda: emit("order.paid", {"a": "\ud800"}, requester=WHOM),
    ),
    "a lone surrogate as key": (
        InvalidPayload,
        lambda: emit("order.paid", {"\udfff": 1}, requester=WHOM),
    ),
    "a circle": (InvalidPayload, lambda: emit("order.paid", circular(), requester=WHOM)),
    "100,000 levels": (
        InvalidPayload,
        lambda: emit("order.paid", nested(100_000), requester=WHOM),
    ),
    "an object": (InvalidPayload, lambda: emit("order.paid", {"a": object()}, requester=WHOM)),
    "bytes": (InvalidPayload, lambda: emit("order.paid", {"a": b"x"}, requester=WHOM)),
    "a tuple as key": (InvalidPayload, lambda: emit("order.paid", {(1, 2): 1}, requester=WHOM)),
    "too much": (
        InvalidPayload,
        lambda: emit("order.paid", {"a": "x" * 256 * 1024}, requester=WHOM),
    ),
    "too many bytes in few characters": (
        InvalidPayload,
        lambda: emit("order.paid", {"a": "\U0001f600" * 65_536}, requester=WHOM),
    ),
    "a list": (InvalidPayload, lambda: emit("order.paid", [1], requester=WHOM)),
    "a text": (InvalidPayload, lambda: emit("order.paid", "text", requester=WHOM)),
    "nothing": (InvalidPayload, lambda: emit("order.paid", None, requester=WHOM)),
    "another database": (
        WrongDatabase,
        lambda: emit("order.paid", {}, requester=WHOM, using="elsewhere"),
    ),
    "another database, of many": (
        WrongDatabase,
        lambda: emit_many("order.paid", [{"data": {}, "requester": WHOM}], using="elsewhere"),
    ),
    "one bad of many": (
        InvalidPayload,
        lambda: emit_many(
            "order.paid",
            [{"data": {}, "requester": WHOM}, {"data": {"a": object()}, "requester": WHOM}],
        ),
    ),
    "one of many without data": (
        InvalidEvent,
        lambda: emit_many("order.paid", [{"data": {}, "requester": WHOM}, {"requester": WHOM}]),
    ),
    "one of many with an unknown option": (
        InvalidEvent,
        lambda: emit_many("order.paid", [{"data": {}, "requester": WHOM, "colour": "red"}]),
    ),
    "many that are no mappings": (
        InvalidEvent,
        lambda: emit_many("order.paid", [7]),  # type: ignore[list-item]
    ),
    "a C1 line break in the requester": (
        InvalidEvent,
        lambda: emit("order.paid", {}, requester="app:a\x85b"),
    ),
    "a line separator in the key": (
        InvalidEvent,
        lambda: emit("order.paid", {}, requester=WHOM, idempotency_key="a\u2028b"),
    ),
    "a long key": (
        InvalidEvent,
        lambda: emit("order.paid", {}, requester=WHOM, idempotency_key="x" * 256),
    ),
    "the last hour of the calendar": (
        InvalidEvent,
        lambda: emit("order.paid", {}, requester=WHOM, occurred_at=THE_END),
    ),
    "before 1970": (
        InvalidEvent,
        lambda: emit("order.paid", {}, requester=WHOM, occurred_at=datetime(1, 1, 1, tzinfo=UTC)),
    ),
    "the signal with an unknown type": (
        UnknownEventType,
        lambda: webhook_event.send(sender=None, type="order.pain", data={}, requester=WHOM),
    ),
}


@pytest.mark.django_db
@pytest.mark.parametrize("what", REFUSED)
def test_what_is_wrong_is_refused_before_any_sql(what: str) -> None:
    error, say = REFUSED[what]
    with transaction.atomic():
        Order.objects.create(number="1")
        with CaptureQueriesContext(connection) as captured, pytest.raises(error) as raised:
            say()
        assert len(captured) == 0
        assert len(str(raised.value)) > 30
        Order.objects.create(number="2")  # the block is still usable
    assert Order.objects.count() == 2
    assert not Event.objects.exists()


class Raising(dict[str, Any]):
    """A mapping of the host's that fails when it is read."""

    def items(self) -> Any:
        raise RuntimeError("the host's mapping failed")

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("the host's mapping failed")


#: What no way of emitting takes as data.
BAD_DATA: dict[str, Callable[[], Any]] = {
    "NaN": lambda: {"a": float("nan")},
    "infinite": lambda: {"a": [-float("inf")]},
    "a lone surrogate": lambda: {"a": "\udcff"},
    "a lone surrogate as name": lambda: {"\ud800": 1},
    "no JSON": lambda: {"a": object()},
    "bytes": lambda: {"a": b"x"},
    "a set": lambda: {"a": {1}},
    "a circle": circular,
    "51 levels": lambda: nested(50),
    "100,000 levels": lambda: nested(100_000),
    "a number as name": lambda: {"a": {7: 1}},
    "one name as number and as text": lambda: {1: "a", "1": "b"},
    "None as name": lambda: {None: 1},
    "true as name": lambda: {"a": [{True: 1}]},
    "an integer of 5,001 digits": lambda: {"a": 10**5000},
    "too much": lambda: {"a": "x" * 256 * 1024},
    "too many bytes": lambda: {"a": "\U0001f600" * 65_536},
    "a mapping that raises": lambda: Raising(a=1),
    "a lazy text that raises": lambda: {"a": lazystr(Raising())},
    "a list": lambda: [{"a": 1}],
}
#: The ways in which a host records an event.
WAYS: dict[str, Callable[[Any], Any]] = {
    "emit": lambda data: emit("order.paid", data, requester=WHOM),
    "emit_many": lambda data: emit_many(
        "order.paid", [{"data": {}, "requester": WHOM}, {"data": data, "requester": WHOM}]
    ),
    "aemit": lambda data: async_to_sync(aemit)("order.paid", data, requester=WHOM),
    "the signal": lambda data: webhook_event.send(
        sender=Order, type="order.paid", data=data, requester=WHOM
    ),
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("what", BAD_DATA)
def test_bad_data_is_refused_before_any_sql_whichever_way_it_comes(what: str, way: str) -> None:
    data = BAD_DATA[what]()
    with transaction.atomic():
        Order.objects.create(number="1")
        with CaptureQueriesContext(connection) as captured, pytest.raises(InvalidPayload) as raised:
            WAYS[way](data)
        assert len(captured) == 0
        assert len(str(raised.value)) < 400
        Order.objects.create(number="2")  # the block is still usable
    assert Order.objects.count() == 2
    assert not Event.objects.exists()


@pytest.mark.django_db
def test_fifty_levels_are_taken_and_read_back() -> None:
    made = emit("order.paid", nested(49), requester=WHOM)
    assert Event.objects.get(pk=made.pk).payload == nested(49)


@contextmanager
def typed(serializer: Callable[[Any], Any]) -> Iterator[str]:
    catalog.register("order.serialised", title="Serialised", serializer=serializer)
    try:
        yield "order.serialised"
    finally:
        catalog.unregister("order.serialised")


@pytest.mark.django_db
@pytest.mark.parametrize("error", [KeyError("a"), TypeError("b"), RuntimeError("c"), Exception()])
def test_a_serializer_that_raises_is_an_invalid_payload(error: Exception) -> None:
    def fail(instance: Any) -> Any:
        raise error

    with typed(fail) as type, transaction.atomic():
        for say in (
            lambda: emit(type, Order(), requester=WHOM),
            lambda: emit_many(type, [{"data": Order(), "requester": WHOM}]),
            lambda: webhook_event.send(sender=None, type=type, data=Order(), requester=WHOM),
        ):
            with pytest.raises(InvalidPayload, match="cannot be written as JSON") as raised:
                say()
            assert raised.value.__cause__ is error
        Order.objects.create(number="1")
    assert not Event.objects.exists()


@pytest.mark.django_db
def test_a_database_error_of_a_serializer_is_the_callers_to_hear() -> None:
    def fail(instance: Any) -> Any:
        raise OperationalError("the connection is gone")

    with typed(fail) as type, pytest.raises(OperationalError):
        emit(type, Order(), requester=WHOM)


@pytest.mark.django_db
def test_the_limit_of_bytes_is_exact(settings: Any) -> None:
    settings.WEBHOOKS = {**settings.WEBHOOKS, "MAX_PAYLOAD_BYTES": 20}
    emit("order.paid", {"a": "é" * 6}, requester=WHOM)  # {"a":"éééééé"}: 20 bytes
    with pytest.raises(InvalidPayload, match="21 bytes"):
        emit("order.paid", {"a": "é" * 6 + "x"}, requester=WHOM)


def test_an_unknown_type_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(UnknownEventType, match=r"Did you mean 'order\.paid'\?"):
        emit("order.pain", {}, requester=WHOM)


# Idempotency


@pytest.mark.django_db
def test_a_repeated_key_returns_the_first_event() -> None:
    first = emit("order.paid", {"order": 1}, requester=WHOM, idempotency_key="k", subject="a")
    again = emit("order.paid", {"order": 1}, requester=WHOM, idempotency_key="k", subject="b")
    assert again.pk == first.pk
    assert again.subject == "a"
    assert Event.objects.count() == 1


@pytest.mark.django_db
def test_a_key_belongs_to_a_requester_and_a_type() -> None:
    pks = {
        emit("order.paid", {}, requester=WHOM, idempotency_key="k").pk,
        emit("order.paid", {}, requester="app:other", idempotency_key="k").pk,
        emit("order.shipped", {}, requester=WHOM, idempotency_key="k").pk,
        emit("shop.closed", {}, idempotency_key="k").pk,
        emit("order.paid", {}, requester=WHOM).pk,
        emit("order.paid", {}, requester=WHOM).pk,
    }
    assert len(pks) == 6


@pytest.mark.django_db(transaction=True)
def test_a_repeated_key_with_other_data_raises_and_the_block_stays_usable() -> None:
    emit("order.paid", {"order": 1}, requester=WHOM, idempotency_key="k")
    with transaction.atomic():
        with pytest.raises(IdempotencyConflict, match="'k'"):
            emit("order.paid", {"order": 2}, requester=WHOM, idempotency_key="k")
        Order.objects.create(number="1")
    assert Order.objects.count() == 1
    assert [event.payload for event in Event.objects.all()] == [{"order": 1}]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("commits", [True, False])
def test_two_that_use_one_key_at_once_record_it_once(commits: bool) -> None:
    """The second waits for the first: it gets its event, or, if that is rolled back, its own."""
    inserted, answers = threading.Event(), []

    def second() -> None:
        try:
            inserted.wait(20)
            answers.append(emit("order.paid", {}, requester=WHOM, idempotency_key="k").pk)
        finally:
            connection.close()

    thread = threading.Thread(target=second)
    thread.start()
    with transaction.atomic():
        first = emit("order.paid", {}, requester=WHOM, idempotency_key="k")
        inserted.set()
        time.sleep(0.4)
        assert not answers  # it waits
        if not commits:
            transaction.set_rollback(True)
    thread.join(30)
    [event] = Event.objects.all()
    assert answers == [event.pk]
    assert (event.pk == first.pk) is commits


# Many


@pytest.mark.django_db
def test_many_events_are_one_statement() -> None:
    events = [{"data": {"order": n}, "requester": f"app:{n % 7}"} for n in range(400)]
    with CaptureQueriesContext(connection) as captured:
        made = emit_many("order.paid", events)
    assert len(captured) <= 1  # PostgreSQL's COPY is not among the captured ones
    assert [event.payload["order"] for event in made] == list(range(400))
    stored = Event.objects.order_by("pk")
    assert [event.pk for event in stored] == [event.pk for event in made]
    assert [event.payload for event in stored] == [each["data"] for each in events]
    assert [event.requester for event in stored] == [each["requester"] for each in events]


@pytest.mark.django_db
def test_many_of_nothing_is_nothing(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        assert emit_many("order.paid", []) == []


@pytest.mark.django_db
def test_many_take_any_iterable_and_every_option() -> None:
    then = datetime(2026, 1, 2, tzinfo=UTC)
    options = {"requester": WHOM, "subject": "s", "occurred_at": then, "idempotency_key": "k"}
    [made] = emit_many("order.paid", ({"data": {"a": n}, **options} for n in [1]))
    row = Event.objects.get(pk=made.pk)
    assert (row.subject, row.occurred_at, row.idempotency_key) == ("s", then, "k")


@pytest.mark.django_db
def test_many_with_and_without_keys_come_back_in_order() -> None:
    first = emit("order.paid", {"order": 1}, requester=WHOM, idempotency_key="one")
    made = emit_many(
        "order.paid",
        [
            {"data": {"order": 0}, "requester": WHOM},
            {"data": {"order": 1}, "requester": WHOM, "idempotency_key": "one"},
            {"data": {"order": 2}, "requester": WHOM, "idempotency_key": "two"},
            {"data": {"order": 2}, "requester": WHOM, "idempotency_key": "two"},
            {"data": {"order": 3}, "requester": WHOM},
        ],
    )
    assert [event.payload["order"] for event in made] == [0, 1, 2, 2, 3]
    assert made[1].pk == first.pk
    assert made[2].pk == made[3].pk
    assert Event.objects.count() == 4


@pytest.mark.django_db(transaction=True)
def test_a_conflict_among_many_records_none_and_leaves_the_block_usable() -> None:
    emit("order.paid", {"order": 1}, requester=WHOM, idempotency_key="k")
    with transaction.atomic():
        with pytest.raises(IdempotencyConflict):
            emit_many(
                "order.paid",
                [
                    {"data": {"order": 0}, "requester": WHOM},
                    {"data": {"order": 9}, "requester": WHOM, "idempotency_key": "new"},
                    {"data": {"order": 2}, "requester": WHOM, "idempotency_key": "k"},
                ],
            )
        Order.objects.create(number="1")
    assert Order.objects.count() == 1
    assert [event.payload for event in Event.objects.all()] == [{"order": 1}]


@pytest.mark.django_db(transaction=True)
def test_many_without_a_transaction_are_all_or_none() -> None:
    emit("order.paid", {"order": 1}, requester=WHOM, idempotency_key="k")
    with pytest.raises(IdempotencyConflict):
        emit_many(
            "order.paid",
            [
                {"data": {"order": 0}, "requester": WHOM},
                {"data": {"order": 2}, "requester": WHOM, "idempotency_key": "k"},
            ],
        )
    assert Event.objects.count() == 1


# Other ways in


@pytest.mark.django_db(transaction=True)
def test_aemit_records_as_emit_does() -> None:
    async def host() -> Event:
        return await aemit("order.paid", {"order": 1}, requester=WHOM, subject="s")

    made = async_to_sync(host)()
    assert Event.objects.get(pk=made.pk).subject == "s"


@pytest.mark.django_db(transaction=True)
def test_aemit_joins_the_transaction_around_it() -> None:
    async def host() -> None:
        await aemit("order.paid", {"order": 1}, requester=WHOM)

    with rolled_back():
        async_to_sync(host)()
        assert Event.objects.count() == 1
    assert not Event.objects.exists()


def test_aemit_raises_as_emit_does() -> None:
    async def host() -> None:
        await aemit("order.pain", {}, requester=WHOM)

    with pytest.raises(UnknownEventType):
        async_to_sync(host)()


@pytest.mark.django_db
def test_sending_the_signal_records_and_answers_with_the_event() -> None:
    answers = webhook_event.send(
        sender=Order, type="order.paid", data={"order": 1}, requester=WHOM, subject="s"
    )
    [event] = [answer for receiver, answer in answers if receiver is record_event]
    assert Event.objects.get(pk=event.pk).subject == "s"


@pytest.mark.django_db
def test_emit_is_a_send_of_the_signal() -> None:
    sent: list[dict[str, Any]] = []

    def hear(sender: Any, **kwargs: Any) -> None:
        sent.append(kwargs)

    with listening(webhook_event, hear):
        made = emit("order.paid", {"order": 1}, requester=WHOM)
    [kwargs] = sent
    assert (kwargs["type"], kwargs["data"], kwargs["requester"]) == (
        "order.paid",
        {"order": 1},
        WHOM,
    )
    assert Event.objects.get().pk == made.pk


@pytest.mark.django_db
def test_without_the_recorder_nothing_is_taken_for_recorded() -> None:
    webhook_event.disconnect(dispatch_uid="webhooks.record_event")
    try:
        with pytest.raises(ImproperlyConfigured, match="INSTALLED_APPS"):
            emit("order.paid", {"order": 1}, requester=WHOM)
    finally:
        webhook_event.connect(record_event, dispatch_uid="webhooks.record_event")


def test_the_public_names_are_reached_from_the_package() -> None:
    assert webhooks.catalog is catalog
    with pytest.raises(AttributeError, match="emitt"):
        webhooks.emitt  # noqa: B018


# What comes after the commit


@pytest.mark.django_db(transaction=True)
def test_event_recorded_comes_after_the_commit_and_only_then() -> None:
    heard: list[tuple[str, bool]] = []

    def hear(sender: Any, event: Event, **kwargs: Any) -> None:
        heard.append((event.pk, connection.in_atomic_block))

    with listening(event_recorded, hear):
        with transaction.atomic():
            made = emit("order.paid", {"order": 1}, requester=WHOM)
            assert heard == []
        assert heard == [(made.pk, False)]

        with rolled_back():
            emit("order.paid", {"order": 2}, requester=WHOM)
        assert len(heard) == 1

        with transaction.atomic(), rolled_back():
            emit("order.paid", {"order": 3}, requester=WHOM)
        assert len(heard) == 1

        many = emit_many("order.paid", [{"data": {"n": n}, "requester": WHOM} for n in range(3)])
        assert [pk for pk, _ in heard[1:]] == [event.pk for event in many]


@pytest.mark.django_db(transaction=True)
def test_a_repeated_event_is_not_announced_again() -> None:
    heard: list[str] = []

    def hear(sender: Any, event: Event, **kwargs: Any) -> None:
        heard.append(event.pk)

    options = {"data": {"n": 1}, "requester": WHOM, "idempotency_key": "k"}
    with listening(event_recorded, hear):
        first = emit("order.paid", **options)
        emit("order.paid", **options)
        emit_many("order.paid", [options, options])
    assert heard == [first.pk]


@pytest.mark.django_db(transaction=True)
def test_a_receiver_that_fails_is_logged_and_hurts_nobody(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[str] = []

    def fail(sender: Any, **kwargs: Any) -> None:
        raise RuntimeError("a receiver of the host")

    def hear(sender: Any, event: Event, **kwargs: Any) -> None:
        heard.append(event.pk)

    with listening(event_recorded, fail), listening(event_recorded, hear):
        made = emit("order.paid", {}, requester=WHOM)
    assert heard == [made.pk]
    assert "a receiver of the host" in caplog.text


calls: list[int] = []


def count_call() -> None:
    calls.append(Event.objects.count())


def raise_always() -> None:
    calls.append(0)
    raise RuntimeError("the broker is on fire")


@pytest.mark.django_db(transaction=True)
def test_a_worker_is_woken_after_the_commit_and_not_on_rollback(settings: Any) -> None:
    calls.clear()
    settings.WEBHOOKS = {**settings.WEBHOOKS, "WAKER": f"{__name__}.count_call"}
    with rolled_back():
        emit("order.paid", {}, requester=WHOM)
    assert calls == []
    with transaction.atomic():
        emit("order.paid", {}, requester=WHOM)
        assert calls == []
    assert calls == [1]


@pytest.mark.django_db(transaction=True)
def test_a_waker_that_raises_never_reaches_the_caller(
    settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    calls.clear()
    settings.WEBHOOKS = {**settings.WEBHOOKS, "WAKER": f"{__name__}.raise_always"}
    emit("order.paid", {}, requester=WHOM)
    with transaction.atomic():
        emit("order.paid", {}, requester=WHOM)
    assert len(calls) == 2  # a refusal costs nothing: the next event tries again
    assert Event.objects.count() == 2
    assert "the broker is on fire" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_a_waker_that_does_not_exist_never_reaches_the_caller(
    settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.WEBHOOKS = {**settings.WEBHOOKS, "WAKER": "nowhere.at_all"}
    assert emit("order.paid", {}, requester=WHOM).pk
    assert "No worker could be woken" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_nothing_in_a_log_line_shows_the_payload(
    settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.WEBHOOKS = {**settings.WEBHOOKS, "WAKER": f"{__name__}.raise_always"}
    emit("order.paid", {"card": "4111-1111"}, requester=WHOM)
    assert "4111-1111" not in caplog.text


@pytest.mark.django_db
def test_what_is_stored_is_json_that_everybody_reads() -> None:
    values = {"n": None, "t": True, "f": 1.5, "i": 10**20, "s": "\x00\u2028</script>", "l": (1, 2)}
    made = emit("order.paid", values, requester=WHOM)
    stored = Event.objects.get(pk=made.pk)
    assert json.loads(stored.data) == {**values, "l": [1, 2]}
    assert "\x00" not in stored.data  # PostgreSQL has no such text; JSON escapes it
