"""Every route there is, found in the URL conf: a new one cannot be forgotten.

Without a token 401, without the scope 403; and whatever belongs to somebody else answers as if it
did not exist.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.urls import get_resolver
from django.utils import timezone

from tests.api.conftest import READ, WRITE, Speaker
from tests.world import Receiver, deliver, emit_orders
from webhooks.api.operations import Operation, operation_of
from webhooks.models import Delivery, Replay, Subscription
from webhooks.urls import urlpatterns

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True)
class Route:
    """One method of one path; ``names`` are those of the ids in it."""

    method: str
    path: str

    @property
    def names(self) -> list[str]:
        return re.findall(r"<str:(\w+)>", self.path)

    @property
    def pages(self) -> bool:
        """Whether the answer is a page of many."""
        return self.operation.page

    @property
    def operation(self) -> Operation:
        [view] = [each.callback.cls for each in urlpatterns if str(each.pattern) == self.path]
        found = operation_of(view, self.method)
        assert found
        return found

    @property
    def needs(self) -> str:
        return READ if self.method == "GET" else WRITE

    def filled(self, *values: str) -> str:
        path = self.path
        for value in values:
            path = re.sub(r"<str:\w+>", value, path, count=1)
        return path

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def _routes() -> list[Route]:
    return [
        Route(method, str(pattern.pattern))
        for pattern in urlpatterns
        for method in METHODS
        if operation_of(pattern.callback.cls, method)
    ]


ROUTES = _routes()
WITH_IDS = [route for route in ROUTES if route.names]
every_route = pytest.mark.parametrize("route", ROUTES, ids=str)
every_route_with_ids = pytest.mark.parametrize("route", WITH_IDS, ids=str)


def test_the_routes_are_those_of_the_design() -> None:
    paths = {route.path for route in ROUTES}
    one = "subscriptions/<str:id>/"
    assert paths == {
        *("subscriptions/", one),
        *(f"{one}{action}/" for action in ("ping", "suspend", "resume", "rotate-secret")),
        *(f"{one}{action}/" for action in ("replay", "replays", "health")),
        *(f"{one}replays/<str:replay_id>/{rest}" for rest in ("", "cancel/")),
        *("event-types/", "event-types/<str:name>/", "event-types/<str:name>/samples/"),
        *("events/", "events/<str:id>/"),
        *("deliveries/", "deliveries/<str:id>/"),
        *("deliveries/<str:id>/attempts/", "deliveries/<str:id>/redeliver/"),
        *("status/", "schema/"),
    }


def test_every_handler_of_a_view_declares_its_operation() -> None:
    for pattern in urlpatterns:
        for method in METHODS:
            if hasattr(pattern.callback.cls, method.lower()):
                assert operation_of(pattern.callback.cls, method), (pattern, method)


def test_the_api_is_mounted() -> None:
    assert get_resolver().resolve("/webhooks/subscriptions/").view_name == "webhooks:subscriptions"


def problem(answer: Any, status: int) -> dict[str, Any]:
    """The problem in an answer, which has the form of all."""
    assert answer.status_code == status, answer.content
    assert answer["Content-Type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert set(found) <= {"type", "title", "status", "detail", "errors"}
    assert found["status"] == status
    assert found["type"]
    assert found["title"]
    assert found["detail"]
    return found


@every_route
def test_without_a_token_it_is_401(route: Route, nobody: Speaker) -> None:
    answer = nobody.send(route.method, route.filled("x", "y"), {})
    problem(answer, 401)
    assert answer["WWW-Authenticate"].startswith("Bearer")


@every_route
def test_without_the_scope_it_is_403_and_names_it(
    route: Route, speak: Callable[..., Speaker]
) -> None:
    other = WRITE if route.needs == READ else READ
    answer = speak(scope=other).send(route.method, route.filled("x", "y"), {})
    assert route.needs in problem(answer, 403)["detail"]


@every_route
def test_a_method_that_it_does_not_have_is_405(route: Route, api: Speaker) -> None:
    answer = api.send("TRACE", route.filled("x", "y"))
    problem(answer, 405)
    assert route.method in answer["Allow"]


@every_route
def test_it_speaks_json_alone(route: Route, api: Speaker) -> None:
    problem(api.send(route.method, route.filled("x", "y"), {}, HTTP_ACCEPT="text/html"), 406)


@every_route
def test_a_parameter_that_it_does_not_know_is_400(route: Route, api: Speaker) -> None:
    answer = api.send(route.method, route.filled("x", "y") + "?colour=red", {})
    assert problem(answer, 400)["errors"]["colour"]


@pytest.fixture
def foreign(stranger: Speaker, receiver: Receiver) -> dict[str, list[str]]:
    """What a stranger has, by the beginning of the path: the ids that follow it."""
    subscription = Subscription.objects.get(pk=stranger.subscribe(receiver.url)["id"])
    [event] = emit_orders(1, stranger.requester)
    deliver()
    delivery = Delivery.objects.get()
    replay = Replay.objects.create(
        subscription=subscription,
        from_at=timezone.now() - timedelta(hours=1),
        to_at=timezone.now(),
        states=["dead"],
    )
    return {
        "subscriptions": [subscription.pk, replay.pk],
        "events": [event.pk, ""],
        "deliveries": [delivery.pk, ""],
        "event-types": ["invoice.sent", ""],  # its scope is not the client's
    }


MALFORMED = [
    *("1", "-", "%00", "%0A", "%F0%9F%92%A9", "null", "..%2F..", "sub_", "sub_1", "a" * 3000),
    *("sub_" + "0" * 31, "sub_" + "G" * 32, "sub_" + "A" * 32, "msg_" + "0" * 32, "0" * 32),
]


def one_answer(speaker: Speaker, route: Route, *ids: str) -> tuple[int, bytes]:
    answer = speaker.send(route.method, route.filled(*ids), {})
    return answer.status_code, answer.content


@every_route_with_ids
def test_foreign_unknown_and_malformed_ids_answer_alike(
    route: Route, foreign: dict[str, list[str]], stranger: Speaker, api: Speaker
) -> None:
    ids = foreign[route.path.split("/")[0]]
    assert one_answer(stranger, route, *ids)[0] != 404 or "invoice.sent" in ids
    random = [re.sub(r"_\w+", "_" + "9" * 32, id) for id in ids]
    answers = {one_answer(api, route, *ids), one_answer(api, route, *random)}
    answers |= {one_answer(api, route, id, id) for id in MALFORMED}
    [(status, content)] = answers
    assert status == 404
    assert b"sub_" not in content


@every_route_with_ids
def test_a_body_that_makes_no_sense_tells_nothing_of_a_foreign_id(
    route: Route, foreign: dict[str, list[str]], api: Speaker
) -> None:
    ids = foreign[route.path.split("/")[0]]
    answer = api.send(route.method, route.filled(*ids), raw=b"[[[")
    problem(answer, 404)


def test_ids_of_ones_own_are_no_key_to_what_is_nested_in_others(
    foreign: dict[str, list[str]], api: Speaker, receiver: Receiver
) -> None:
    own = api.subscribe(receiver.url)["id"]
    _foreign, replay = foreign["subscriptions"]
    problem(api.get(f"subscriptions/{own}/replays/{replay}/"), 404)
    problem(api.post(f"subscriptions/{own}/replays/{replay}/cancel/"), 404)
    assert Replay.objects.get().state == "running"


@pytest.mark.parametrize(
    "path", ["", "nothing/", "subscriptions", "subscriptions/a/b/c/", "a%0Ab", "events/x", "%00/"]
)
@pytest.mark.parametrize("method", METHODS)
def test_any_other_path_is_the_same_404(path: str, method: str, api: Speaker) -> None:
    answer = api.send(method, path, {})
    assert problem(answer, 404) == problem(api.get("events/evt_1/"), 404)


@every_route
@pytest.mark.parametrize("name", ["OPERATION", "operation", "CLIENT", "DISPATCH", "__INIT__"])
def test_the_name_of_an_attribute_is_no_method(name: str, route: Route, api: Speaker) -> None:
    problem(api.send(name, route.filled("x", "y")), 405)


@every_route
def test_an_error_is_kept_by_nobody(route: Route, api: Speaker, nobody: Speaker) -> None:
    path = route.filled("x", "y")
    for answer in (
        nobody.send(route.method, path, {}),
        api.send("TRACE", path),
        api.send(route.method, f"{path}?colour=red", {}),
        api.send(route.method, path, {}, HTTP_ACCEPT="text/html"),
    ):
        assert answer.status_code >= 400
        assert answer["Cache-Control"] == "no-store"
    if route.names:
        answer = api.send(route.method, path, {})
        assert (answer.status_code, answer["Cache-Control"]) == (404, "no-store")


@pytest.mark.urls("tests.api.tenants")
@pytest.mark.parametrize("route", [each for each in ROUTES if each.method == "GET"], ids=str)
def test_a_mount_may_capture_what_no_handler_takes(route: Route, api: Speaker) -> None:
    answer = api.get(f"/acme/webhooks/{route.filled('x', 'y')}")
    assert answer.status_code == (404 if route.names else 200), answer.content


@pytest.mark.urls("tests.api.tenants")
def test_links_stay_below_the_mount_that_was_asked(api: Speaker) -> None:
    new = {"callback_url": "http://127.0.0.1:9/in", "event_types": ["order.paid"]}
    made = [api.post("/acme/webhooks/subscriptions/", new) for _ in range(2)]
    below = "http://testserver/acme/webhooks/subscriptions/"
    assert [each["Location"] for each in made] == [f"{below}{each.json()['id']}/" for each in made]
    assert api.get(made[0]["Location"]).json()["id"] == made[0].json()["id"]
    page = api.get(f"{below}?limit=1").json()
    assert page["next"].startswith(f"{below}?limit=1&cursor=")
    assert [each["id"] for each in api.get(page["next"]).json()["results"]] == [
        made[0].json()["id"]
    ]
    problem(api.post("/acme/webhooks/nothing/"), 404)
    problem(api.send("TRACE", "/acme/webhooks/subscriptions/x/"), 405)


def test_options_tells_the_methods(api: Speaker, nobody: Speaker) -> None:
    answer = api.send("OPTIONS", "subscriptions/")
    assert answer.status_code == 204
    assert answer["Allow"] == "GET, POST, HEAD, OPTIONS"
    problem(nobody.send("OPTIONS", "subscriptions/"), 401)


def test_head_answers_as_get_does_without_a_body(api: Speaker) -> None:
    answer = api.send("HEAD", "subscriptions/")
    assert answer.status_code == 200
    assert answer.content == b""
