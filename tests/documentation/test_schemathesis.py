"""Requests made up from the OpenAPI document, valid and not: none gets an answer that it lacks.

The application is called in this process, with a real token and rows in a real database.
``WEBHOOKS_SCHEMATHESIS_EXAMPLES`` bounds the requests of each operation.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import pytest
import schemathesis
from django.core.wsgi import get_wsgi_application
from django.utils import timezone
from hypothesis import HealthCheck, settings
from oauth2_provider.models import AccessToken, Application
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.world import Answer, deliver, emit_orders
from webhooks import catalog, lifecycle, redelivery
from webhooks.documentation.openapi import document
from webhooks.models import Delivery
from webhooks.redelivery import ReplayRequest

EXAMPLES = int(os.environ.get("WEBHOOKS_SCHEMATHESIS_EXAMPLES", "15"))
SCOPE = "webhooks:read webhooks:write"


schema = schemathesis.openapi.from_dict(
    document(catalog.visible(frozenset()), "http://testserver/webhooks/")
)
schema.app = get_wsgi_application()
# U+0000 is refused: no database stores it. JSON Schema has no plain way to say so.
schema.config.generation.update(allow_x00=False)
bounded = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def there(transactional_db: None, settings: Any, receivers: Any) -> dict[str, Any]:
    """A client with a token, and one row of each kind; ids by the first part of a path."""
    settings.OAUTH2_PROVIDER = {"SCOPES": dict.fromkeys(SCOPE.split(), "")}
    settings.WEBHOOKS = {
        **settings.WEBHOOKS,
        "THROTTLES": {"create": None, "ping": None, "rotate": None, "replay": None},
        "MAX_SUBSCRIPTIONS": 10_000,
    }
    receiver = receivers(Answer(status=500))
    application = Application.objects.create(
        client_type="confidential", authorization_grant_type="client-credentials"
    )
    AccessToken.objects.create(
        application=application,
        token="schemathesis",
        scope=SCOPE,
        expires=timezone.now() + timedelta(hours=1),
    )
    requester = f"app:{application.client_id}"
    subscription, _ = lifecycle.subscribe(
        requester=requester,
        callback_url=receiver.url,
        event_types=["order.*"],
        application=application,
        scopes=SCOPE,
    )
    [event] = emit_orders(1, requester=requester)
    deliver()
    now = timezone.now()
    replay = redelivery.replay(
        subscription, ReplayRequest(now - timedelta(hours=1), now), actor=requester
    )
    return {
        "subscriptions": subscription.pk,
        "events": event.pk,
        "deliveries": Delivery.objects.get().pk,
        "replays": replay.pk,
        "event-types": "order.paid",
        "query": {"cursor": None, "since": event.pk, "status": None},
        "body": {
            **dict.fromkeys(("callback_url", "target_url", "url", "hookUrl"), receiver.url),
            **{name: ["order.*"] for name in ("event_types", "event", "events", "types")},
            "requester": requester,
            "headers": {"X-Tenant": "acme"},
            "basic_auth": "user:password",
            "time_zone": "Europe/Berlin",
            "status": "subscribed",
            "handshake": "",
            # Whether there is a backlog to discard depends on what was sent before.
            "backlog": "deliver",
            "from": "2026-01-15T00:00:00Z",
            "to": "2026-01-16T00:00:00Z",
        },
    }


def send(case: Any, *without: Any) -> None:
    case.call_and_validate(
        headers={"Authorization": "Bearer schemathesis"}, excluded_checks=list(without)
    )


@schema.parametrize()
@bounded
def test_what_anybody_may_send(case: Any, there: dict[str, Any]) -> None:
    # Whether a cursor, a host or an event exists is more than a schema can say.
    send(case, positive_data_acceptance)


@schema.parametrize()
@bounded
def test_what_is_sent_to_what_is_there(case: Any, there: dict[str, Any]) -> None:
    if case.path_parameters and not case.meta.is_negative_at(ParameterLocation.PATH):
        first = case.operation.path.split("/")[1]
        for name in case.path_parameters:
            case.path_parameters[name] = there["replays" if name == "replay_id" else first]
    if case.meta.generation.mode.is_positive:
        case.query = {**_known(case.query or {}, there["query"])}
        if isinstance(case.body, dict):
            case.body = _known(case.body, there["body"])
    send(case)


def _known(made: Any, known: dict[str, Any]) -> dict[str, Any]:
    """What was made up, with values that are there in the place of some; None: without it."""
    found = {name: known.get(name, value) for name, value in made.items()}
    return {name: value for name, value in found.items() if name not in known or value is not None}
