"""The catalogue: names, duplicates, patterns, and models that emit as they change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core import serializers
from django.db import OperationalError, connection, transaction
from django.db.models.signals import post_delete, post_save, pre_delete
from rest_framework.serializers import ModelSerializer

from tests.shop.models import Order
from webhooks import catalog, emit
from webhooks.exceptions import CatalogError, InvalidEvent, UnknownEventType
from webhooks.models import Event


class OrderSerializer(ModelSerializer):  # type: ignore[type-arg]
    class Meta:
        model = Order
        fields = ["id", "number", "owner"]


@pytest.fixture(autouse=True)
def _catalogue_and_signals_as_before() -> Iterator[None]:
    types = dict(catalog._types)
    receivers = {signal: list(signal.receivers) for signal in (post_save, pre_delete, post_delete)}
    yield
    catalog._types.clear()
    catalog._types.update(types)
    for signal, before in receivers.items():
        signal.receivers = before
        signal.sender_receivers_cache.clear()


# Names


@pytest.mark.parametrize(
    "name", ["push.clicked", "crm.contact.created", "a.b", "order_line.paid_late", "v2.a1.b2"]
)
def test_names_are_noun_verb_or_namespace_noun_verb(name: str) -> None:
    assert catalog.register(name).name == name
    assert catalog.get(name).name == name


@pytest.mark.parametrize(
    "name",
    [
        *("push", "Push.clicked", "push.Clicked", "push clicked", "push..clicked", ".clicked"),
        *("push.", "a.b.c.d", "1push.clicked", "push.1", "push-x.y", "push.*", "*", "", "púsh.x"),
        *("push.clicked\n", "_a.b", "a." + "b" * 127, None, 7),
    ],
)
def test_other_names_are_refused(name: Any) -> None:
    with pytest.raises(CatalogError, match=r"noun\.verb"):
        catalog.register(name)


@pytest.mark.django_db
def test_the_longest_name_fits_its_column() -> None:
    name = "a." + "b" * 126
    catalog.register(name, audience="everyone")
    emit(name, {})
    assert Event.objects.get().type == name


def test_the_same_definition_may_come_twice() -> None:
    first = catalog.register("a.b", title="A", example={"x": 1})
    assert catalog.register("a.b", title="A", example={"x": 1}) == first


def test_another_definition_of_a_name_is_refused_and_changes_nothing() -> None:
    catalog.register("a.b", title="A")
    with pytest.raises(CatalogError, match="registered already"):
        catalog.register("a.b", title="B")
    assert catalog.get("a.b").title == "A"


def test_an_unknown_audience_is_refused() -> None:
    with pytest.raises(CatalogError, match="'nobody'"):
        catalog.register("a.b", audience="nobody")  # type: ignore[arg-type]


def test_a_serializer_and_a_schema_exclude_each_other() -> None:
    with pytest.raises(CatalogError, match="not both"):
        catalog.register("a.b", serializer=OrderSerializer, schema={})


def test_an_event_is_for_its_requester_unless_it_says_otherwise() -> None:
    assert catalog.register("a.b").audience == "requester"


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("order.pay", "order.paid"), ("order.shiped", "order.shipped"), ("ORDER.PAID", None)],
)
def test_an_unknown_name_is_answered_with_the_nearest(wrong: str, near: str | None) -> None:
    with pytest.raises(UnknownEventType) as raised:
        catalog.get(wrong)
    assert repr(wrong) in str(raised.value)
    if near:
        assert f"Did you mean {near!r}?" in str(raised.value)


@pytest.mark.parametrize("name", [None, [], {}, 7, "x" * 100_000])
def test_any_nonsense_is_an_unknown_name(name: Any) -> None:
    with pytest.raises(UnknownEventType) as raised:
        catalog.get(name)
    assert len(str(raised.value)) < 400


def test_all_types_come_by_name_and_include_what_autodiscovery_found() -> None:
    names = [entry.name for entry in catalog.all_types()]
    assert names == sorted(names)
    assert {"order.paid", "order.shipped", "shop.order.refunded", "shop.closed"} <= set(names)


def test_a_type_can_be_taken_out_for_a_test() -> None:
    catalog.register("a.b")
    catalog.unregister("a.b")
    catalog.unregister("a.b")
    with pytest.raises(UnknownEventType):
        catalog.get("a.b")


# Patterns


@pytest.mark.parametrize(
    "patterns",
    [
        ["order.paid"],
        ["order.*"],
        ["shop.*"],
        ["shop.order.*"],
        ["*"],
        ["order.paid", "shop.closed", "*"],
        ["order.paid"] * 100,
    ],
)
def test_patterns_that_cover_something_are_accepted(patterns: list[str]) -> None:
    catalog.check_patterns(patterns)


@pytest.mark.parametrize(
    "patterns",
    [
        *([], None, "order.paid", {"order.paid"}, ("order.paid",), ["order.paid"] * 101, [None]),
        *([7], [["order.paid"]], [{}], ["order.pain"], ["orde.*"], ["ord*"], ["*.paid"], ["**"]),
        *([".*"], [""], ["order."], ["order"], ["order.paid.*"], ["order.paid", "nowhere.*"]),
    ],
)
def test_other_patterns_are_refused(patterns: Any) -> None:
    with pytest.raises(CatalogError):
        catalog.check_patterns(patterns)


def test_a_refused_pattern_is_named_with_the_nearest_type() -> None:
    with pytest.raises(CatalogError, match=r"'order\.pain'.*Did you mean 'order\.paid'\?"):
        catalog.check_patterns(["order.shipped", "order.pain"])


# Models


@pytest.fixture
def orders() -> None:
    catalog.register_model(
        Order, prefix="stock.order", serializer=OrderSerializer, requester="owner"
    )


def emitted() -> list[tuple[str, dict[str, Any]]]:
    return [(event.type, event.payload) for event in Event.objects.order_by("pk")]


@pytest.mark.django_db
def test_a_model_emits_as_its_rows_change(orders: None) -> None:
    order = Order.objects.create(number="1", owner="app:a")
    order.number = "2"
    order.save()
    pk = order.pk
    order.delete()
    assert emitted() == [
        ("stock.order.created", {"id": pk, "number": "1", "owner": "app:a"}),
        ("stock.order.updated", {"id": pk, "number": "2", "owner": "app:a"}),
        ("stock.order.deleted", {"id": pk, "number": "2", "owner": "app:a"}),
    ]
    assert set(Event.objects.values_list("subject", flat=True)) == {f"order:{pk}"}
    assert set(Event.objects.values_list("requester", flat=True)) == {"app:a"}


@pytest.mark.django_db
def test_a_deleted_row_is_serialised_before_it_goes(orders: None) -> None:
    class Looks(OrderSerializer):
        def to_representation(self, instance: Order) -> Any:
            return {"there": Order.objects.filter(pk=instance.pk).exists()}

    catalog.register_model(
        Order, prefix="seen.order", serializer=Looks, requester="owner", events=["deleted"]
    )
    Order.objects.create(number="1")
    Order.objects.all().delete()  # each row has its signals
    assert ("seen.order.deleted", {"there": True}) in emitted()


@pytest.mark.django_db
def test_each_row_of_a_mass_deletion_is_emitted(orders: None) -> None:
    for number in "123":
        Order.objects.create(number=number)
    Order.objects.all().delete()
    deleted = [data["number"] for type_, data in emitted() if type_ == "stock.order.deleted"]
    assert sorted(deleted) == ["1", "2", "3"]


@pytest.mark.django_db
def test_raw_saves_of_fixtures_are_skipped(orders: None) -> None:
    text = serializers.serialize("json", [Order(pk=7, number="1")])
    for each in serializers.deserialize("json", text):
        each.save()
    assert Order.objects.count() == 1
    assert emitted() == []


@pytest.mark.django_db
def test_bulk_writes_emit_nothing(orders: None) -> None:
    Order.objects.bulk_create([Order(number="1")])
    Order.objects.update(number="2")
    assert emitted() == []


@pytest.mark.django_db
def test_the_requester_may_be_a_function_of_the_row() -> None:
    catalog.register_model(
        Order,
        prefix="stock.order",
        serializer=OrderSerializer,
        requester=lambda order: f"user:{order.number}",
    )
    Order.objects.create(number="7")
    assert Event.objects.get().requester == "user:7"


@pytest.mark.django_db
def test_a_model_without_requester_emits_for_everyone() -> None:
    catalog.register_model(Order, prefix="stock.order", serializer=OrderSerializer)
    assert catalog.get("stock.order.created").audience == "everyone"
    Order.objects.create(number="7")
    assert Event.objects.get().requester == ""


@pytest.mark.django_db
def test_only_the_wanted_verbs_are_registered_and_emitted() -> None:
    catalog.register_model(
        Order,
        prefix="stock.order",
        serializer=OrderSerializer,
        requester="owner",
        events=["updated"],
    )
    with pytest.raises(UnknownEventType):
        catalog.get("stock.order.created")
    order = Order.objects.create(number="1")
    order.save()
    order.delete()
    assert [type_ for type_, _data in emitted()] == ["stock.order.updated"]


@pytest.mark.django_db
def test_a_model_that_is_registered_twice_emits_once(orders: None) -> None:
    catalog.register_model(
        Order, prefix="stock.order", serializer=OrderSerializer, requester="owner"
    )
    Order.objects.create(number="1").delete()
    assert len(emitted()) == 2


def test_a_verb_that_no_model_emits_is_refused() -> None:
    with pytest.raises(CatalogError, match="archived"):
        catalog.register_model(
            Order, prefix="stock.order", serializer=OrderSerializer, events=["archived"]
        )


@pytest.mark.parametrize("prefix", ["Order", "a.b.c", "order.", "", "or der"])
def test_a_malformed_prefix_is_refused(prefix: str) -> None:
    with pytest.raises(CatalogError, match="prefix"):
        catalog.register_model(Order, prefix=prefix, serializer=OrderSerializer)


@pytest.mark.django_db(transaction=True)
def test_the_event_is_in_the_transaction_of_the_change(orders: None) -> None:
    with transaction.atomic():
        Order.objects.create(number="1")
        assert len(emitted()) == 1
        transaction.set_rollback(True)
    assert (Order.objects.count(), emitted()) == (0, [])


@pytest.mark.django_db(transaction=True)
def test_a_deletion_is_undone_where_its_event_cannot_be_written(orders: None) -> None:
    """Also without a transaction of the host's: a deletion has one of its own."""

    def refuse(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith("INSERT") and "webhooks_event" in sql:
            raise OperationalError("the disk is full")
        return execute(sql, params, many, context)

    order = Order.objects.create(number="1")
    with connection.execute_wrapper(refuse), pytest.raises(OperationalError):
        order.delete()
    assert Order.objects.count() == 1
    Order.objects.get().delete()
    assert [type_ for type_, _data in emitted()] == ["stock.order.created", "stock.order.deleted"]


@pytest.mark.django_db(transaction=True)
def test_a_row_that_names_no_requester_is_refused_with_its_transaction(orders: None) -> None:
    def host() -> None:
        with transaction.atomic():
            Order.objects.create(number="1", owner="")

    with pytest.raises(InvalidEvent, match="addressed to one requester"):
        host()
    assert not Order.objects.exists()


@pytest.mark.django_db
def test_a_serializer_turns_what_is_emitted_into_the_data() -> None:
    catalog.register("stock.order.moved", serializer=OrderSerializer, audience="everyone")
    order = Order.objects.create(number="1", owner="app:a")
    event = emit("stock.order.moved", order)
    assert event.payload == {"id": order.pk, "number": "1", "owner": "app:a"}
