"""Subscriptions over HTTP: made, listed, read, changed, ended."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.api.conftest import Speaker
from tests.world import Receiver, deliver, emit_orders
from webhooks import lifecycle
from webhooks.api.serializers.fields import MASK
from webhooks.api.serializers.subscriptions import RESET
from webhooks.bounds import MAX_METADATA
from webhooks.headers import open_headers
from webhooks.models import Subscription
from webhooks.receiving import verify

URL = "http://127.0.0.1:9/in"
NEW = {"callback_url": URL, "event_types": ["order.paid"]}
SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()

#: Every option with a value that is not its default.
CHANGED: dict[str, Any] = {
    "rate_limit": 60,
    "max_in_flight": 2,
    "ordered": True,
    "on_suspend": "discard",
    "retry_schedule": [5, 60.5],
    "contact_email": "ops@example.com",
    "description": " Der eigene Lädchen-Haken ",
    "metadata": {"plan": {"name": "gold", "seats": [1, 2.5, None, True]}},
    "time_zone": "Europe/Berlin",
    "hour": 7,
    "day": 2,
    "trigger": "daily",
    "format": "mandrill",
    "content": "counts",
    "batch_size": 10,
    "batch_seconds": 5,
    "empty_digests": True,
    "headers": {"X-Token": "hush"},
}


def stored(made: dict[str, Any]) -> Subscription:
    return Subscription.objects.get(pk=made["id"])


# Made


def test_a_new_one_is_a_flat_object_with_its_secret_and_its_place(api: Speaker) -> None:
    answer = api.post("subscriptions/", NEW)
    assert answer.status_code == 201
    made = answer.json()
    assert made["secret"].startswith("whsec_")
    assert made["secret"].endswith(made["secret_last_four"])
    assert made["status"] == "subscribed"
    assert made["requester"] == api.requester
    assert answer["Cache-Control"] == "no-store"
    assert answer["Location"] == f"http://testserver/webhooks/subscriptions/{made['id']}/"
    assert api.get(answer["Location"]).json() == {**made, "secret": None}


def test_it_has_every_field_of_the_design(api: Speaker) -> None:
    assert set(api.subscribe()) >= {
        *("id", "callback_url", "event_types", "requester", "status", "status_reason", "trigger"),
        *("time_zone", "hour", "day", "format", "payload", "content", "batch_size"),
        *("batch_seconds", "empty_digests", "next_digest_at", "rate_limit", "max_in_flight"),
        *("ordered", "on_suspend", "handshake"),
        *("retry_schedule", "headers", "basic_auth", "contact_email", "description", "metadata"),
        *("secret", "created_at", "updated_at"),
    }


def test_the_row_knows_whose_it_is_and_who_made_it(api: Speaker) -> None:
    made = stored(api.subscribe())
    assert made.requester == made.status_actor == api.requester
    assert made.application_id == api.application.pk
    assert made.user_id is None
    assert set(made.scopes.split()) == {"webhooks:read", "webhooks:write"}


def test_a_user_token_makes_the_users_own(speak: Callable[..., Speaker], make_user: Any) -> None:
    user = make_user("ann")
    made = stored(speak(user=user).subscribe())
    assert (made.requester, made.user_id) == (f"user:{user.pk}", user.pk)


def test_options_are_kept_as_they_were_given(api: Speaker) -> None:
    made = api.subscribe(**CHANGED)
    shown = {**CHANGED, "headers": {"X-Token": MASK}}
    assert {name: made[name] for name in shown} == shown
    assert open_headers(stored(made).headers) == {"X-Token": "hush"}


def test_what_arrives_is_signed_with_the_secret_that_was_shown(
    api: Speaker, receiver: Receiver
) -> None:
    made = api.subscribe(receiver.url, basic_auth="ann:secret", headers={"X-Token": "hush"})
    [event] = emit_orders(1, api.requester)
    deliver()
    [post] = receiver.posts
    assert verify(post.body, post.headers, made["secret"])["id"] == event.pk
    assert post.headers["x-token"] == "hush"
    assert post.headers["authorization"] == "Basic " + base64.b64encode(b"ann:secret").decode()


def test_a_client_may_bring_its_own_secret(api: Speaker) -> None:
    assert api.subscribe(secret=SECRET)["secret"] == SECRET


@pytest.mark.parametrize("secret", ["", "short", "whsec_", "whsec_AAAA", "whsec_!", SECRET + "x"])
def test_a_secret_that_is_none_is_refused(secret: str, api: Speaker) -> None:
    answer = api.post("subscriptions/", {**NEW, "secret": secret})
    assert answer.status_code == 400
    assert "secret" in answer.json()["errors"]
    assert secret not in answer.json()["detail"] or secret == ""


@pytest.mark.parametrize("alias", ["target_url", "url", "hookUrl"])
def test_other_names_of_the_url_are_understood(alias: str, api: Speaker) -> None:
    answer = api.post("subscriptions/", {alias: URL, "event": "order.paid"})
    assert answer.status_code == 201
    assert answer.json()["callback_url"] == URL


@pytest.mark.parametrize("alias", ["event", "events", "event_types"])
@pytest.mark.parametrize("given", ["order.paid", ["order.paid"]])
def test_other_names_of_the_event_types_are_understood(
    alias: str, given: Any, api: Speaker
) -> None:
    answer = api.post("subscriptions/", {"url": URL, alias: given})
    assert answer.status_code == 201
    assert answer.json()["event_types"] == ["order.paid"]


def test_two_names_for_one_thing_are_refused(api: Speaker) -> None:
    errors = api.post("subscriptions/", {**NEW, "url": URL, "events": []}).json()["errors"]
    assert set(errors) == {"callback_url", "event_types"}
    assert "url" in errors["callback_url"][0]


def test_the_client_may_say_who_it_is_and_nobody_else(api: Speaker) -> None:
    assert api.post("subscriptions/", {**NEW, "requester": api.requester}).status_code == 201
    answer = api.post("subscriptions/", {**NEW, "requester": "app:client-stranger"})
    assert answer.status_code == 400
    assert set(answer.json()["errors"]) == {"requester"}


def test_it_may_begin_suspended(api: Speaker) -> None:
    assert api.subscribe(status="suspended")["status"] == "suspended"


@pytest.mark.parametrize("status", ["unsubscribed", "pending"])
def test_how_it_may_begin_is_told(status: str, api: Speaker) -> None:
    answer = api.post("subscriptions/", {**NEW, "status": status})
    assert answer.status_code == 400
    [message] = answer.json()["errors"]["status"]
    for word in ("“subscribed”", "“suspended”", f"“{status}”", "DELETE"):
        assert word in message


METADATA: dict[str, tuple[dict[str, Any], str]] = {
    "too long": ({"a": "x" * (MAX_METADATA - len('{"a":""}') + 1)}, "4096"),
    "too long in UTF-8": ({"a": "ü" * (MAX_METADATA // 2)}, "4096"),
    "too large a number": ({"a": 1e15}, "as text"),
    "of many digits": ({"a": 10**300}, "as text"),
    "too large below zero": ({"a": -1e308}, "as text"),
    "too large, deep": ({"a": [{"b": [1, 1e308]}]}, "as text"),
}


@pytest.mark.parametrize(("metadata", "told"), METADATA.values(), ids=METADATA)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_metadata_are_small(method: str, metadata: dict[str, Any], told: str, api: Speaker) -> None:
    path = "subscriptions/" if method == "POST" else f"subscriptions/{api.subscribe()['id']}/"
    answer = api.send(method, path, {**NEW, "metadata": metadata})
    assert answer.status_code == 400
    assert told in answer.json()["errors"]["metadata"][0]


def test_metadata_up_to_their_limits_come_back_as_they_were(api: Speaker) -> None:
    numbers = [1e15 - 1, -(10**15) + 1, 1e-300, 0.1, True, -0.5]
    full = {"n": numbers, "a": ""}
    room = MAX_METADATA - len(json.dumps(full, separators=(",", ":")))
    metadata = {**full, "a": "x" * room}
    made = api.subscribe(metadata=metadata)
    assert api.get(f"subscriptions/{made['id']}/").json()["metadata"] == metadata


def test_one_with_a_handshake_is_pending(api: Speaker) -> None:
    assert api.subscribe(handshake="x-hook-secret")["status"] == "pending"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("callback_url", "http://10.0.0.1/in"),
        ("callback_url", "ftp://example.com/"),
        ("callback_url", "http://u:p@127.0.0.1/"),
        ("callback_url", "not a url"),
        ("callback_url", ""),
        ("callback_url", None),
        ("callback_url", 5),
        ("callback_url", "http://127.0.0.1/" + "a" * 2048),
        ("event_types", []),
        ("event_types", ["order.payed"]),
        ("event_types", ["invoice.sent"]),
        ("event_types", ["invoice.*"]),
        ("event_types", [5]),
        ("event_types", {"order.paid": 1}),
        ("event_types", ["order.paid"] * 101),
        ("status", "pending"),
        ("status", "unsubscribed"),
        ("trigger", "weekly"),
        ("time_zone", "Mars/Olympus"),
        ("format", "xml"),
        ("format", "cloudevents"),  # the project has no CLOUDEVENTS_SOURCE
        ("payload", "thin"),  # nor a BASE_URL
        ("content", "counts"),  # in real time
        ("empty_digests", True),
        ("batch_size", 1001),
        ("batch_seconds", 3601),
        ("day", 32),
        ("hour", 24),
        ("hour", "7"),
        ("hour", True),
        ("hour", 7.5),
        ("rate_limit", 0),
        ("rate_limit", 2**40),
        ("ordered", "yes"),
        ("ordered", 1),
        ("on_suspend", "drop"),
        ("handshake", "wave"),
        ("retry_schedule", [0]),
        ("retry_schedule", [True]),
        ("retry_schedule", [5] * 31),
        ("headers", {"Host": "a"}),
        ("headers", {"X": "a\r\nB: c"}),
        ("headers", {"X": 5}),
        ("headers", []),
        ("headers", {"X": MASK}),
        ("basic_auth", "no colon"),
        ("basic_auth", MASK),
        ("contact_email", "nobody"),
        ("description", "x" * 256),
        ("description", None),
        ("metadata", []),
    ],
)
def test_what_cannot_be_acted_upon_is_refused_by_name(field: str, value: Any, api: Speaker) -> None:
    answer = api.post("subscriptions/", {**NEW, field: value})
    assert answer.status_code == 400, answer.content
    assert [name.split(".")[0] for name in answer.json()["errors"]] == [field]
    assert not Subscription.objects.exists()


def test_an_unknown_event_type_is_named_with_the_nearest_that_may_be_seen(api: Speaker) -> None:
    def told(*types: str) -> str:
        answer = api.post("subscriptions/", {**NEW, "event_types": list(types)})
        message: str = answer.json()["errors"]["event_types"][0]
        return message

    assert "'order.payed'" in told("order.payed")
    assert "Did you mean 'order.paid'?" in told("order.payed")
    # What needs another scope is as unknown as what there is not.
    assert "'invoice.sent' is not registered" in told("invoice.sent")
    # A client registers nothing: it is told where to look.
    assert told("zzz").endswith("GET event-types/ shows which ones there are.")
    assert "webhook_events.py" not in told("zzz")
    assert "Did you mean 'invoice" not in told("invoice.sen")


def test_a_scope_shows_the_types_that_need_it(speak: Callable[..., Speaker]) -> None:
    rich = speak(scope="webhooks:read webhooks:write billing")
    assert rich.subscribe(event_types=["invoice.sent"])["event_types"] == ["invoice.sent"]


def test_unknown_fields_are_named_with_the_nearest_known_one(api: Speaker) -> None:
    errors = api.post("subscriptions/", {**NEW, "descripton": "x", "zzz": 1}).json()["errors"]
    assert "“description”" in errors["descripton"][0]
    assert "callback_url" in errors["zzz"][0]


@pytest.mark.parametrize(
    "field",
    ["id", "status_reason", "status_since", "created_at", "updated_at", "secret_last_four"],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_what_the_service_sets_cannot_be_sent(field: str, method: str, api: Speaker) -> None:
    made = api.subscribe()
    path = "subscriptions/" if method == "POST" else f"subscriptions/{made['id']}/"
    answer = api.send(method, path, {**NEW, field: made[field]})
    assert answer.status_code == 400
    assert "set by the service" in answer.json()["errors"][field][0]


def test_there_is_room_for_so_many(api: Speaker, settings: Any) -> None:
    settings.WEBHOOKS = {**settings.WEBHOOKS, "MAX_SUBSCRIPTIONS": 1}
    api.subscribe()
    answer = api.post("subscriptions/", NEW)
    assert answer.status_code == 400
    assert "may not have more" in answer.json()["detail"]


# Listed


def ids(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.content
    return [each["id"] for each in answer.json()["results"]]


def test_the_list_has_the_newest_first_and_not_the_unsubscribed(api: Speaker) -> None:
    first, second, third = (api.subscribe()["id"] for _ in range(3))
    api.delete(f"subscriptions/{second}/")
    assert ids(api.get("subscriptions/")) == [third, first]
    assert ids(api.get("subscriptions/?status=unsubscribed")) == [second]
    assert api.get(f"subscriptions/{second}/").json()["status"] == "unsubscribed"


def test_the_list_can_be_filtered(api: Speaker) -> None:
    paid = api.subscribe(URL, event_types=["order.paid"])["id"]
    orders = api.subscribe(URL + "?a=1&b=ü", event_types=["order.*"], status="suspended")["id"]
    all_ = api.subscribe(URL + "2", event_types=["*"])["id"]
    assert ids(api.get("subscriptions/?status=suspended")) == [orders]
    assert ids(api.get("subscriptions/?event_type=order.paid")) == [all_, orders, paid]
    assert ids(api.get("subscriptions/?event_type=order.shipped")) == [all_, orders]
    assert ids(api.get("subscriptions/?event_type=order.*")) == [orders]
    assert ids(api.get("subscriptions/?event_type=invoice.sent")) == []
    assert ids(api.get(f"subscriptions/?callback_url={URL}")) == [paid]
    quoted = "http%3A%2F%2F127.0.0.1%3A9%2Fin%3Fa%3D1%26b%3D%C3%BC"
    assert ids(api.get(f"subscriptions/?callback_url={quoted}")) == [orders]


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("status=gone", "status"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=5.0", "limit"),
        ("limit=%D9%A1", "limit"),
        ("limit=", "limit"),
        ("cursor=zzz", "cursor"),
        ("cursor=K2Zvbw", "cursor"),
        ("cursor=%00", "cursor"),
        ("statuss=subscribed", "statuss"),
        ("status=subscribed&status=suspended", "status"),
        ("format=json", "format"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused_by_name(
    query: str, named: str, api: Speaker
) -> None:
    answer = api.get(f"subscriptions/?{query}")
    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == [named]


def test_pages_lead_forth_and_back(api: Speaker) -> None:
    made = [api.subscribe()["id"] for _ in range(5)][::-1]
    first = api.get("subscriptions/?limit=2").json()
    second = api.get(first["next"]).json()
    third = api.get(second["next"]).json()
    pages = [[each["id"] for each in page["results"]] for page in (first, second, third)]
    assert pages == [made[:2], made[2:4], made[4:]]
    assert (first["previous"], third["next"]) == (None, None)
    assert ids(api.get(third["previous"])) == pages[1]
    assert ids(api.get(second["previous"])) == pages[0]
    assert api.get(second["previous"]).json()["previous"] is None
    assert ids(api.get(api.get(second["previous"]).json()["next"])) == pages[1]


def test_pages_neither_skip_nor_repeat_what_is_made_meanwhile(api: Speaker) -> None:
    made = [api.subscribe()["id"] for _ in range(4)][::-1]
    first = api.get("subscriptions/?limit=2").json()
    api.subscribe()
    assert ids(api.get(first["next"])) == made[2:]


# Changed


def test_patch_changes_what_it_names_and_nothing_else(api: Speaker) -> None:
    made = api.subscribe(**CHANGED)
    answer = api.patch(f"subscriptions/{made['id']}/", {"description": "new"})
    assert answer.status_code == 200
    expected = {**made, "description": "new", "secret": None}
    assert {**answer.json(), "updated_at": ""} == {**expected, "updated_at": ""}
    assert open_headers(stored(made).headers) == {"X-Token": "hush"}


def test_put_sets_back_what_it_leaves_out(api: Speaker) -> None:
    made = api.subscribe(**CHANGED, basic_auth="a:b")
    fresh = api.subscribe()
    answer = api.put(f"subscriptions/{made['id']}/", NEW)
    assert answer.status_code == 200, answer.content
    shown = answer.json()
    assert shown["event_types"] == ["order.paid"]
    assert {name: shown[name] for name in RESET} == {name: fresh[name] for name in RESET}
    assert not stored(made).headers
    assert not stored(made).basic_auth


def test_every_option_is_set_back_by_a_put() -> None:
    kept = {"callback_url", "event_types", "requester", "status", "secret", "handshake"}
    from webhooks.api.serializers.subscriptions import NewSubscription

    writable = {name for name, field in NewSubscription().fields.items() if not field.read_only}
    assert set(RESET) == writable - kept


def test_put_needs_what_a_new_one_needs(api: Speaker) -> None:
    made = api.subscribe()
    answer = api.put(f"subscriptions/{made['id']}/", {})
    assert set(answer.json()["errors"]) == {"callback_url", "event_types"}


def test_headers_that_are_read_back_are_not_taken_for_values(api: Speaker) -> None:
    made = api.subscribe(headers={"X-Token": "hush"}, basic_auth="a:b")
    path = f"subscriptions/{made['id']}/"
    shown = api.get(path).json()
    for name in ("headers", "basic_auth"):
        assert set(api.patch(path, {name: shown[name]}).json()["errors"]) == {name}
    assert open_headers(stored(made).headers) == {"X-Token": "hush"}


def test_basic_auth_is_taken_away_with_null(api: Speaker) -> None:
    made = api.subscribe(basic_auth="a:b")
    assert made["basic_auth"] == MASK
    assert (
        api.patch(f"subscriptions/{made['id']}/", {"basic_auth": None}).json()["basic_auth"] is None
    )
    assert not stored(made).basic_auth


def test_a_secret_is_rotated_and_not_patched(api: Speaker) -> None:
    answer = api.patch(f"subscriptions/{api.subscribe()['id']}/", {"secret": SECRET})
    assert answer.status_code == 400
    assert "secret" in answer.json()["errors"]


def test_an_alias_works_in_a_patch(api: Speaker) -> None:
    made = api.subscribe()
    answer = api.patch(f"subscriptions/{made['id']}/", {"event": "order.shipped"})
    assert answer.json()["event_types"] == ["order.shipped"]


def test_the_status_is_moved_by_a_patch(api: Speaker) -> None:
    path = f"subscriptions/{api.subscribe()['id']}/"
    for status in ("suspended", "suspended", "subscribed", "unsubscribed", "unsubscribed"):
        answer = api.patch(path, {"status": status})
        assert answer.status_code == 200
        assert answer.json()["status"] == status
    answer = api.patch(path, {"status": "subscribed"})
    assert answer.status_code == 400
    assert "unsubscribed" in answer.json()["errors"]["status"][0]


def test_a_refused_move_takes_the_other_changes_back(api: Speaker) -> None:
    made = api.subscribe(handshake="x-hook-secret")
    answer = api.patch(
        f"subscriptions/{made['id']}/", {"description": "new", "status": "suspended"}
    )
    assert answer.status_code == 400
    assert stored(made).description == ""


def test_what_an_operator_suspended_its_owner_cannot_resume(api: Speaker) -> None:
    made = api.subscribe()
    lifecycle.suspend(stored(made), reason="operator")
    answers = [
        api.patch(f"subscriptions/{made['id']}/", {"status": "subscribed"}),
        api.post(f"subscriptions/{made['id']}/resume/"),
    ]
    for answer in answers:
        assert answer.status_code == 409
        assert answer["Content-Type"] == "application/problem+json"
    assert stored(made).status == "suspended"


@pytest.mark.parametrize("field", ["handshake", "callback_url"])
def test_a_proven_endpoint_cannot_be_exchanged(field: str, api: Speaker) -> None:
    made = api.subscribe(handshake="x-hook-secret")
    path = f"subscriptions/{made['id']}/"
    value = {"handshake": "", "callback_url": URL + "/other"}[field]
    answer = api.patch(path, {field: value})
    assert answer.status_code == 400
    assert set(answer.json()["errors"]) == {field}
    assert api.put(path, NEW).status_code == 200  # it repeats the URL, and leaves the handshake out
    assert stored(made).handshake == "x-hook-secret"


def test_a_handshake_cannot_be_asked_for_later(api: Speaker) -> None:
    made = api.subscribe()
    answer = api.patch(f"subscriptions/{made['id']}/", {"handshake": "cloudevents"})
    assert set(answer.json()["errors"]) == {"handshake"}


# Ended


def test_delete_unsubscribes_and_a_second_one_is_204_as_well(
    api: Speaker, receiver: Receiver
) -> None:
    made = api.subscribe(receiver.url)
    for _ in range(2):
        answer = api.delete(f"subscriptions/{made['id']}/")
        assert (answer.status_code, answer.content) == (204, b"")
    row = stored(made)
    assert (row.status, row.status_reason, row.status_actor) == (
        "unsubscribed",
        "client",
        api.requester,
    )
    emit_orders(1, api.requester)
    deliver()
    assert receiver.posts == []
