"""Who takes a grant away stops the webhooks that hang on it, and nobody else's.

Three people have granted an application access, by authorization code and PKCE in a browser. One
revokes that; the application of another is deleted; the third one's account is deactivated. Within
a minute each of their subscriptions is suspended, with ``entitlement_lost``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.e2e.browser import REDIRECT_URI, Browser, token
from tests.e2e.endpoint import Endpoint
from tests.e2e.project import WORKER, ExampleProject
from tests.world import until

SCOPE = "webhooks:read webhooks:write"
BEFORE = "2020-01-01T00:00:00Z"
PASSWORD = "correct horse battery staple"


@dataclass
class Person:
    """A user with an application's subscription."""

    pk: str
    browser: Browser
    client_id: str
    tokens: dict[str, Any]
    endpoint: Endpoint
    subscription: str = ""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[ExampleProject]:
    with ExampleProject(tmp_path / "project", deliveries=WORKER) as running:
        yield running


@pytest.mark.timeout(240)
def test_without_its_grant_a_subscription_is_suspended(
    project: ExampleProject, endpoints: Callable[[], Endpoint]
) -> None:
    rita, adam, ina, otto = people = [
        somebody(project, name, endpoints()) for name in ("rita", "adam", "ina", "otto")
    ]
    for person in people:
        subscribe(project, person)
    push_to(project, people)
    for person in people:
        assert person.endpoint.take(1)[0].type == "push.sent"

    refresh_the_token(project, rita)
    assert statuses(project, people) == [["subscribed", ""]] * 4  # a new token is the same grant

    rita.browser.revoke_the_only_token()
    adam.browser.delete_application(application_of(project, adam))
    # Past the signals of Django, as a nightly import of users does it: the sweep must notice.
    project.shell(
        "from django.contrib.auth.models import User;"
        f"assert User.objects.filter(pk={ina.pk}).update(is_active=False) == 1"
    )
    lost = ["suspended", "entitlement_lost"]
    expected = [lost, lost, lost, ["subscribed", ""]]
    until(lambda: statuses(project, people) == expected, timeout=75, what="their suspension")

    push_to(project, people)
    assert len(otto.endpoint.take(1)) == 1  # who still grants it still receives
    assert [person.endpoint.posts for person in people] == [1, 1, 1, 2]
    for person in (rita, adam, ina):
        assert ask(project, person, "GET", "subscriptions/").status_code == 401

    rita.tokens = rita.browser.authorize(rita.client_id, SCOPE)
    shown = ask(project, rita, "GET", f"subscriptions/{rita.subscription}/").json()
    assert [shown["status"], shown["status_reason"]] == lost
    resumed = ask(project, rita, "POST", f"subscriptions/{rita.subscription}/resume/")
    assert (resumed.status_code, resumed.json()["status"]) == (200, "subscribed")

    # What was addressed to her meanwhile was not for this application; now it may be asked for.
    asked = {"from": BEFORE, "only_missing": True}
    replay = f"subscriptions/{rita.subscription}/replay/"
    assert ask(project, rita, "POST", replay, json={**asked, "dry_run": True}).json() == {
        "count": 1
    }
    assert rita.endpoint.posts == 1
    assert ask(project, rita, "POST", replay, json=asked).status_code == 202
    assert rita.endpoint.take(1)[0].type == "push.sent"
    assert "Traceback" not in project.log("web") + project.log("deliveries")


def somebody(project: ExampleProject, name: str, endpoint: Endpoint) -> Person:
    """A user who has granted an application access; the application is the user's own as well."""
    pk = project.shell(
        "from django.contrib.auth.models import User;"
        f"print(User.objects.create_user({name!r}, password={PASSWORD!r}).pk)"
    ).strip()
    client_id = f"crm-of-{name}"
    project.manage(
        *("createapplication", "public", "authorization-code", "--client-id", client_id),
        *("--name", client_id, "--user", pk, "--redirect-uris", REDIRECT_URI),
    )
    browser = Browser(project.origin)
    browser.log_in(name, PASSWORD)
    return Person(pk, browser, client_id, browser.authorize(client_id, SCOPE), endpoint)


def subscribe(project: ExampleProject, person: Person) -> None:
    answer = ask(
        project,
        person,
        "POST",
        "subscriptions/",
        json={"callback_url": person.endpoint.url, "event_types": ["push.sent"]},
    )
    assert answer.status_code == 201, answer.text
    told = answer.json()
    assert told["requester"] == f"user:{person.pk}"
    person.subscription = told["id"]
    person.endpoint.secrets.append(told["secret"])


def push_to(project: ExampleProject, people: list[Person]) -> None:
    """Send a push, hence one ``push.sent``, for each of them."""
    for person in people:
        project.manage("campaign", "--devices", "1", "--requester", f"user:{person.pk}")


def refresh_the_token(project: ExampleProject, person: Person) -> None:
    person.tokens = token(
        project.origin,
        grant_type="refresh_token",
        refresh_token=person.tokens["refresh_token"],
        client_id=person.client_id,
    )


def application_of(project: ExampleProject, person: Person) -> str:
    """Its id, as the developer sees it in the list of applications."""
    listed = person.browser.open("/o/applications/").text
    found = re.search(r'href="/o/applications/(\d+)/"', listed)
    assert found, listed
    return found[1]


def ask(
    project: ExampleProject, person: Person, method: str, path: str, **options: Any
) -> requests.Response:
    return requests.request(
        method,
        f"{project.api}/{path}",
        headers={"Authorization": f"Bearer {person.tokens['access_token']}"},
        timeout=30,
        **options,
    )


def statuses(project: ExampleProject, people: list[Person]) -> list[list[str]]:
    """Status and reason of each one's subscription, as the operator sees them."""
    said = project.shell(
        "import json; from webhooks.models import Subscription;"
        "found = Subscription.objects.in_bulk();"
        f"ids = {[person.subscription for person in people]!r};"
        "print(json.dumps([[found[i].status, found[i].status_reason] for i in ids]))"
    )
    return json.loads(said)
