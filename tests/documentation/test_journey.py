"""docs/api.md: its commands are run against a live server, and answer as it says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from oauth2_provider.models import Application

from tests.packaging.documents import ROOT, blocks
from tests.world import Answer, Received, Receiver, deliver
from webhooks import emit
from webhooks.models import Subscription
from webhooks.receiving import verify

DOCUMENT = ROOT / "docs" / "api.md"
ENDPOINT = "https://warehouse.example.net/hooks"


def steps() -> dict[str, tuple[str, Any]]:
    """By name: the command, and the answer as the document has it, or None."""
    found = list(blocks(DOCUMENT.read_text()))
    told: dict[str, tuple[str, Any]] = {}
    for block, after in zip(found, [*found[1:], None], strict=True):
        name = block.marker.removeprefix("journey: ")
        if name != block.marker:
            shown = after is not None and after.language == "json"
            told[name] = (block.code, json.loads(after.code) if shown and after else None)
    return told


class Journey:
    """Runs the steps in their order. known: variables of the shell."""

    def __init__(self, host: str, endpoint: str, **known: str) -> None:
        self.steps = steps()
        self.done: list[str] = []
        self.endpoint = endpoint
        self.known = {"HOST": host, **known}

    def __call__(self, name: str, **keep: Callable[[Any], str]) -> Any:
        """Run a step; hold its answer against the document; keep parts of it as variables."""
        command, expected = self.steps[name]
        ran = subprocess.run(
            ["sh", "-ec", command.replace(ENDPOINT, self.endpoint)],
            env={**os.environ, **self.known},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        answer = json.loads(ran.stdout)
        if expected is not None:
            assert shape(answer, expected) == shape(expected, answer), (name, answer)
        self.known |= {variable: pick(answer) for variable, pick in keep.items()}
        self.done.append(name)
        return answer


def shape(value: Any, beside: Any) -> Any:
    """Names and types; where one of two is null, or an empty list, both pass for that."""
    if value is None or beside is None:
        return None
    if isinstance(value, dict) and isinstance(beside, dict):
        return {name: shape(each, beside.get(name, ...)) for name, each in sorted(value.items())}
    if isinstance(value, list) and isinstance(beside, list):
        return [shape(value[0], beside[0])] if value and beside else []
    return "number" if isinstance(value, int | float) else type(value).__name__


@pytest.mark.urls("tests.documentation.urls")
@pytest.mark.django_db(transaction=True)
def test_the_journey_goes_as_the_document_says(
    live_server: Any, receivers: Callable[..., Receiver], settings: Any
) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    settings.OAUTH2_PROVIDER = {
        "SCOPES": dict.fromkeys(("webhooks:read", "webhooks:write"), ""),
        "DEFAULT_SCOPES": ["webhooks:read"],
    }
    broken = False

    def answer(post: Received) -> Answer:
        if "x-hook-secret" in post.headers:
            return Answer(headers={"X-Hook-Secret": post.headers["x-hook-secret"]})
        return Answer(status=500, body=b"database is locked") if broken else Answer()

    receiver = receivers(answer)
    application = Application(
        client_type="confidential", authorization_grant_type="client-credentials"
    )
    secret = application.client_secret
    application.save()
    me = f"app:{application.client_id}"
    go = Journey(
        live_server.url,
        receiver.url,
        CLIENT_ID=application.client_id,
        CLIENT_SECRET=secret,
    )

    def pay(order: int) -> None:
        emit("order.paid", {"order": order}, requester=me)
        deliver()

    pay(1)
    go("token", TOKEN=lambda answer: answer["access_token"])
    assert [each["name"] for each in go("types")["results"]] == ["order.paid", "order.shipped"]
    assert len(go("samples")) >= 1

    made = go("subscribe", SUBSCRIPTION=lambda answer: answer["id"])
    assert made["status"] == "subscribed"
    assert made["headers"] == {"X-Tenant": "********"}

    pending = go("handshake")
    assert pending["status"] == "pending"
    deliver()
    other = Subscription.objects.get(pk=pending["id"])
    assert other.status == "subscribed"
    other.delete()

    assert go("ping")["delivered"] is True
    ping = receiver.posts[-1]
    assert verify(ping.body, ping.headers, made["secret"])["type"] == "webhooks.ping"

    broken = True
    pay(2)
    listed = go(
        "deliveries",
        DELIVERY=lambda answer: answer["results"][0]["id"],
        EVENT=lambda answer: answer["results"][0]["event"],
    )
    assert [each["state"] for each in listed["results"]] == ["pending"]
    [attempt] = go("attempts")["results"]
    assert (attempt["status_code"], attempt["excerpt"]) == (500, "database is locked")
    go("health")

    broken = False
    before = len(receiver.posts)
    go("redeliver")
    deliver()
    assert [post.id for post in receiver.posts[before:]] == [go.known["EVENT"]]

    assert go("count") == {"count": 1}
    go("replay", REPLAY=lambda answer: answer["id"])
    deliver()
    assert go("progress")["state"] == "finished"
    assert receiver.posts[-1].json["data"] == {"order": 1}

    pay(3)
    assert go("event")["data"] == {"order": 2}
    assert [each["type"] for each in go("feed")["results"]] == ["order.paid"]
    assert go("change")["rate_limit"] == 600
    assert go("suspend")["status"] == "suspended"
    assert go("resume")["status"] == "subscribed"

    rotated = go("rotate")
    pay(4)
    for each in (made["secret"], rotated["secret"]):
        message = verify(receiver.posts[-1].body, receiver.posts[-1].headers, each)
        assert message["data"] == {"order": 4}

    assert go("delete") == {"status": 204}
    assert go("error")["status"] == 400
    assert go.done == list(go.steps), "each step of the document is run, in its order"
