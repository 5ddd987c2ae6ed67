"""A subscriber's whole journey, step by step, over HTTP alone.

Read it from :func:`test_a_subscribers_whole_journey` on: it says what a subscriber's developer
does, each step with the request that does it and with all that can be relied on in the answer. The
example project runs beside it: its web server, a django-q2 cluster that delivers, and its push
campaigns, whose events these are. What arrives is verified with ``standardwebhooks`` and ``svix``,
other people's libraries for Python and Node, by an endpoint that can be broken.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from svix.webhooks import Webhook as SvixWebhook

from tests.e2e.endpoint import Endpoint, Message
from tests.e2e.project import QCLUSTER, ExampleProject
from tests.e2e.verifying import NodeSvix, is_authentic
from tests.world import until

CLIENT_ID, CLIENT_SECRET = "acme-crm", "the-secret-that-the-product-gave-us"
SCOPE = "webhooks:read webhooks:write"
STEPS = ("sent", "delivered", "opened", "clicked", "unsubscribed")


@pytest.fixture
def project(tmp_path: Path) -> Iterator[ExampleProject]:
    with ExampleProject(tmp_path / "project", deliveries=QCLUSTER) as running:
        running.manage(
            *("createapplication", "confidential", "client-credentials", "--name", "Acme CRM"),
            *("--client-id", CLIENT_ID, "--client-secret", CLIENT_SECRET),
        )
        yield running


@pytest.mark.timeout(240)
def test_a_subscribers_whole_journey(
    project: ExampleProject, endpoints: Callable[[], Endpoint], node_svix: NodeSvix
) -> None:
    acme = Subscriber(project, endpoints(), endpoints(), node_svix)

    get_a_token(acme)
    find_the_event_types(acme)
    subscribe(acme)
    prove_the_endpoint(acme)
    send_a_ping(acme)
    delivery = receive_and_verify(acme)
    look_up_the_event(acme, delivery)
    look_up_the_delivery(acme, delivery)

    ask_to_be_told_of_trouble(acme)
    break_the_endpoint(acme)
    dead = see_what_failed(acme)
    repair_the_endpoint(acme)
    redeliver_one(acme, dead[0])
    hear_of_the_recovery(acme)
    replay_the_others(acme, dead[1:])
    have_a_delivered_one_again(acme, delivery)

    rotate_the_secret(acme)
    suspend_and_resume(acme)
    leave(acme)

    assert acme.endpoint.forged == 0
    for name in ("web", "deliveries"):
        assert "Traceback" not in project.log(name)
    if node_svix.missing:
        pytest.skip(f"The whole journey was made, but for svix under Node: {node_svix.missing}")
    assert node_svix.verified > 0


class Subscriber:
    """What the subscriber's program knows, and how it asks."""

    def __init__(
        self, project: ExampleProject, endpoint: Endpoint, pager: Endpoint, node_svix: NodeSvix
    ) -> None:
        """endpoint: where events go. pager: of whoever is called when that fails."""
        self.project = project
        self.endpoint = endpoint
        self.pager = pager
        self.node_svix = node_svix
        self.access_token = ""
        self.subscription = ""
        self.secret = ""
        self.subject = ""  # of the last campaign's events

    def ask(self, method: str, path: str, expect: int = 200, **options: Any) -> Any:
        """Ask the API; the answer's JSON. Fails the test for another status."""
        return self.answer(method, path, expect, **options)[0]

    def answer(
        self, method: str, path: str, expect: int = 200, **options: Any
    ) -> tuple[Any, requests.Response]:
        """The answer's JSON, and the answer itself for its headers."""
        response = requests.request(
            method,
            path if path.startswith("http") else f"{self.project.api}/{path}",
            headers={"Authorization": f"Bearer {self.access_token}"},
            timeout=30,
            **options,
        )
        assert response.status_code == expect, f"{response.status_code}: {response.text}"
        if expect != 204:
            kind = "problem+json" if expect >= 400 else "json"
            assert response.headers["Content-Type"] == f"application/{kind}"
        return response.json() if response.content else None, response

    @property
    def path(self) -> str:
        return f"subscriptions/{self.subscription}/"

    def events_happen(self, devices: int = 2) -> int:
        """The product sends a push to some devices; how many events came of it."""
        said = self.project.manage(
            "campaign", "--devices", str(devices), "--requester", f"app:{CLIENT_ID}"
        )
        self.subject, count = said.split()
        return int(count)

    def verify(self, message: Message) -> Any:
        """Verify with every library; the parsed body."""
        assert is_authentic(self.secret, message.headers, message.body)
        if not self.node_svix.missing:
            found = self.node_svix.verify(self.secret, message.headers, message.body)
            assert found == json.loads(message.body)
        return json.loads(message.body)


def get_a_token(acme: Subscriber) -> None:
    """A program gets its token by its own credentials; it is a header's matter alone."""
    answer = requests.post(
        f"{acme.project.origin}/o/token/",
        auth=(CLIENT_ID, CLIENT_SECRET),
        data={"grant_type": "client_credentials", "scope": SCOPE},
        timeout=30,
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    told = answer.json()
    assert (told["token_type"], told["expires_in"], told["scope"]) == ("Bearer", 3600, SCOPE)
    assert "refresh_token" not in told  # it asks for another one in the same way

    asked = requests.get(
        f"{acme.project.api}/event-types/",
        params={"access_token": told["access_token"]},
        timeout=30,
    )
    assert asked.status_code == 401  # a token in the query would stand in every log on the way
    assert asked.headers["WWW-Authenticate"].startswith("Bearer")
    assert asked.headers["Content-Type"] == "application/problem+json"
    acme.access_token = told["access_token"]


def find_the_event_types(acme: Subscriber) -> None:
    """The catalogue says which events there are, and what each one holds."""
    listed = acme.ask("GET", "event-types/")["results"]
    pushes = {each["name"] for each in listed if each["name"].startswith("push.")}
    assert pushes == {f"push.{step}" for step in STEPS}

    clicked = acme.ask("GET", "event-types/push.clicked/")
    assert clicked["title"] == "Push clicked"
    assert set(clicked["schema"]["required"]) <= set(clicked["example"])

    samples = acme.ask("GET", "event-types/push.clicked/samples/")
    assert 1 <= len(samples) <= 3
    assert {sample["type"] for sample in samples} == {"push.clicked"}
    assert set(samples[0]) == {"id", "type", "timestamp", "data"}  # as it will be delivered


def subscribe(acme: Subscriber) -> None:
    """Ask for events; the secret is told now, and never again."""
    told, answer = acme.answer(
        "POST",
        "subscriptions/",
        201,
        json={
            "callback_url": acme.endpoint.url,
            "event_types": ["push.*"],
            "handshake": "x-hook-secret",
            "retry_schedule": [1, 1],  # two retries, a second apart each; the default takes days
            "description": "Clicks into the CRM",
        },
    )
    assert answer.headers["Cache-Control"] == "no-store"
    assert told["secret"].startswith("whsec_")
    assert told["requester"] == f"app:{CLIENT_ID}"
    assert told["status"] == "pending"
    acme.subscription, acme.secret = told["id"], told["secret"]
    acme.endpoint.secrets.append(told["secret"])

    shown = acme.ask("GET", acme.path)
    assert (shown["secret"], shown["secret_last_four"]) == (None, told["secret"][-4:])
    here = {"callback_url": acme.endpoint.url}
    [listed] = acme.ask("GET", "subscriptions/", params=here)["results"]
    assert listed["id"] == told["id"]


def prove_the_endpoint(acme: Subscriber) -> None:
    """It has asked for a handshake: nothing is sent before its endpoint has answered that."""
    until(
        lambda: acme.ask("GET", acme.path)["status"] == "subscribed",
        timeout=30,
        what="the confirmation of the handshake",
    )
    assert len(acme.endpoint.handshakes) == 1
    assert acme.endpoint.handshakes[0]
    assert acme.endpoint.inbox == []


def send_a_ping(acme: Subscriber) -> None:
    """Try the endpoint out, and get its answer at once."""
    told = acme.ask("POST", f"{acme.path}ping/")
    assert told["status_code"] == 204
    [message] = acme.endpoint.take(1)
    assert acme.verify(message)["type"] == "webhooks.ping"


def receive_and_verify(acme: Subscriber) -> dict[str, Any]:
    """The product's events arrive: signed, and in the shape that the catalogue promises."""
    count = acme.events_happen(devices=3)
    messages = acme.endpoint.take(count)
    assert {"push.sent", "push.delivered"} <= {message.type for message in messages}
    schemas = {each["name"]: each["schema"] for each in acme.ask("GET", "event-types/")["results"]}
    for message in messages:
        body = acme.verify(message)
        assert body["id"] == message.headers["webhook-id"]
        assert set(schemas[body["type"]]["required"]) <= set(body["data"])
        forged = message.body.replace(b"push.", b"Push.")
        assert not is_authentic(acme.secret, message.headers, forged)

    def all_delivered() -> bool:
        page = acme.ask("GET", "deliveries/", params={"subscription": acme.subscription})
        return [each["state"] for each in page["results"]] == ["delivered"] * count

    until(all_delivered, timeout=30, what="the record of all deliveries")
    page = acme.ask("GET", "deliveries/", params={"subscription": acme.subscription, "limit": 1})
    assert (len(page["results"]), page["previous"]) == (1, None)
    following = acme.ask("GET", page["next"])["results"]
    assert following
    assert following[0]["id"] != page["results"][0]["id"]
    found: dict[str, Any] = page["results"][0]
    return found


def look_up_the_event(acme: Subscriber, delivery: dict[str, Any]) -> None:
    """Who doubts a message asks the API for its event."""
    event = acme.ask("GET", f"events/{delivery['event']}/")
    assert (event["id"], event["type"]) == (delivery["event"], delivery["event_type"])
    assert {"id": delivery["id"], "subscription": acme.subscription, "state": "delivered"} in event[
        "deliveries"
    ]
    newest = acme.ask("GET", "events/", params={"type": event["type"]})["results"]
    assert event["id"] in [each["id"] for each in newest]


def look_up_the_delivery(acme: Subscriber, delivery: dict[str, Any]) -> None:
    """Each POST is on record with its answer."""
    assert acme.ask("GET", f"deliveries/{delivery['id']}/")["state"] == "delivered"
    [attempt] = acme.ask("GET", f"deliveries/{delivery['id']}/attempts/")["results"]
    assert (attempt["status_code"], attempt["number"]) == (204, 1)
    assert attempt["trigger"] == "first"


def ask_to_be_told_of_trouble(acme: Subscriber) -> None:
    """Operational events tell of one's own subscriptions, at another endpoint than the failing."""
    told = acme.ask(
        "POST",
        "subscriptions/",
        201,
        json={
            "callback_url": acme.pager.url,
            "event_types": ["webhooks.subscription.failing", "webhooks.subscription.recovered"],
        },
    )
    assert told["status"] == "subscribed"  # no handshake was asked for
    acme.pager.secrets.append(told["secret"])


def be_told(acme: Subscriber, what: str) -> dict[str, Any]:
    """What the pager says of the subscription. It is told with the next sweep."""
    acme.project.sweep()
    [message] = acme.pager.take(1)
    assert message.type == f"webhooks.subscription.{what}"
    data: dict[str, Any] = json.loads(message.body)["data"]
    assert data["subscription_id"] == acme.subscription
    return data


def break_the_endpoint(acme: Subscriber) -> None:
    """It fails; its health says so, and why."""
    health = acme.ask("GET", f"{acme.path}health/")
    assert health["status"] == "healthy"
    acme.ask("PATCH", acme.path, json={"retry_schedule": []})  # what fails once is given up
    acme.endpoint.broken = True
    acme.events_happen(devices=4)
    until(
        lambda: acme.ask("GET", f"{acme.path}health/")["status"] == "failing",
        timeout=30,
        what="the health's turn to failing",
    )
    health = acme.ask("GET", f"{acme.path}health/")
    assert health["reason"]["code"] == "server_error"
    assert "attempts in a row have failed" in health["reason"]["message"]
    assert health["last_attempt"]["status_code"] == 500
    assert datetime.fromisoformat(health["since"]) > datetime.now(UTC) - timedelta(minutes=2)
    assert be_told(acme, "failing")["reason"]["code"] == "server_error"


def see_what_failed(acme: Subscriber) -> list[dict[str, Any]]:
    """What was given up is dead, and stays there to be sent again; the endpoint is parked by then,
    and what else there is waits."""
    mine = {"subscription": acme.subscription, "state": "dead"}
    dead = acme.ask("GET", "deliveries/", params=mine)["results"]
    assert len(dead) >= 5
    attempts = acme.ask("GET", f"deliveries/{dead[0]['id']}/attempts/")["results"]
    assert [each["number"] for each in attempts] == [1]
    assert {each["status_code"] for each in attempts} == {500}
    assert "the database is full" in attempts[0]["excerpt"]  # what its own endpoint had said
    assert acme.endpoint.inbox == []
    found: list[dict[str, Any]] = dead
    return found


def repair_the_endpoint(acme: Subscriber) -> None:
    acme.endpoint.broken = False
    assert acme.ask("POST", f"{acme.path}ping/")["status_code"] == 204
    assert [message.type for message in acme.endpoint.take(1)] == ["webhooks.ping"]


def hear_of_the_recovery(acme: Subscriber) -> None:
    """One delivery was accepted, so it fails no longer; what was given up is still told of."""
    be_told(acme, "recovered")
    health = acme.ask("GET", f"{acme.path}health/")
    assert health["status"] == "degraded"
    assert health["reason"]["code"] == "dead_letters"


def redeliver_one(acme: Subscriber, dead: dict[str, Any]) -> None:
    """One delivery again: the same message, so the same ``webhook-id``."""
    waiting = acme.ask("GET", f"{acme.path}health/")["pending"]
    acme.ask("POST", f"deliveries/{dead['id']}/redeliver/", 202)
    # It tries the parked endpoint, half a minute after that was parked; then the others follow.
    messages = acme.endpoint.take(waiting + 1, timeout=60)
    assert acme.verify(messages[0])["id"] == messages[0].id == dead["event"]
    until(
        lambda: acme.ask("GET", f"deliveries/{dead['id']}/")["state"] == "delivered",
        timeout=30,
        what="the record of the delivery",
    )


def replay_the_others(acme: Subscriber, dead: list[dict[str, Any]]) -> None:
    """All that did not arrive within a time, at once; first only counted."""
    now = datetime.now(UTC)
    asked = {"from": (now - timedelta(hours=1)).isoformat(), "to": now.isoformat()}
    counted = acme.ask("POST", f"{acme.path}replay/", json={**asked, "dry_run": True})
    assert counted["count"] == len(dead)
    assert acme.endpoint.inbox == []
    acme.ask("POST", f"{acme.path}replay/", 202, json=asked)
    again = acme.endpoint.take(len(dead))
    assert {message.id for message in again} == {each["event"] for each in dead}


def have_a_delivered_one_again(acme: Subscriber, delivery: dict[str, Any]) -> None:
    """A receiver that drops repeats never sees the same id again, so it may ask for a new one."""
    before = acme.endpoint.seen.count(delivery["event"])
    acme.ask("POST", f"deliveries/{delivery['id']}/redeliver/", 202)
    until(
        lambda: acme.endpoint.seen.count(delivery["event"]) == before + 1,
        timeout=30,
        what="the repeat",
    )
    assert acme.endpoint.inbox == []  # our endpoint has dropped it

    acme.ask("POST", f"deliveries/{delivery['id']}/redeliver/", 202, json={"new_id": True})
    [message] = acme.endpoint.take(1)
    assert message.id != delivery["event"]
    acme.verify(message)


def rotate_the_secret(acme: Subscriber) -> None:
    """For a day both secrets sign, so that no message is refused meanwhile."""
    old = acme.secret
    told, answer = acme.answer("POST", f"{acme.path}rotate-secret/")
    assert answer.headers["Cache-Control"] == "no-store"
    new = told["secret"]
    assert new.startswith("whsec_")
    assert new != old
    acme.endpoint.secrets.append(new)
    count = acme.events_happen(devices=1)
    for message in acme.endpoint.take(count):
        signatures = message.headers["webhook-signature"].split(" ")
        assert len(signatures) == 2
        assert (
            SvixWebhook(new).sign(
                message.id,
                datetime.fromtimestamp(int(message.headers["webhook-timestamp"]), UTC),
                message.body.decode(),
            )
            == signatures[0]
        )  # the newest stands first
        for acme.secret in (old, new):  # it verifies with either
            acme.verify(message)


def suspend_and_resume(acme: Subscriber) -> None:
    """A pause: what happens meanwhile is kept, and delivered afterwards."""
    suspended = acme.ask("POST", f"{acme.path}suspend/")
    assert (suspended["status"], suspended["status_reason"]) == ("suspended", "client")
    before = acme.endpoint.posts
    count = acme.events_happen(devices=1)
    until(
        lambda: acme.ask("GET", f"{acme.path}health/")["pending"] == count,
        timeout=30,
        what="the fan-out to a suspended subscription",
    )
    health = acme.ask("GET", f"{acme.path}health/")
    assert health["status"] == "suspended"
    assert acme.endpoint.posts == before
    assert acme.ask("POST", f"{acme.path}resume/")["status"] == "subscribed"
    for message in acme.endpoint.take(count):
        acme.verify(message)


def leave(acme: Subscriber) -> None:
    """Unsubscribe, twice if need be, and hear nothing more."""
    for _ in range(2):
        acme.ask("DELETE", acme.path, 204)
    assert acme.ask("GET", acme.path)["status"] == "unsubscribed"
    acme.ask("POST", f"{acme.path}ping/", 400)

    before = acme.endpoint.posts
    count = acme.events_happen(devices=1)

    def in_the_feed() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = acme.ask("GET", "events/", params={"subject": acme.subject})[
            "results"
        ]
        return found

    until(lambda: len(in_the_feed()) == count, timeout=30, what="the fan-out")
    for event in in_the_feed():
        assert acme.ask("GET", f"events/{event['id']}/")["deliveries"] == []
    assert acme.endpoint.posts == before
