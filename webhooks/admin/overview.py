"""What stands above the fields of a subscription: how it fares, its charts, its last deliveries."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.http import HttpRequest
from django.utils.translation import gettext as _

from webhooks import health, probing, remedies
from webhooks.admin import ranges
from webhooks.admin.health import latency, since, throughput
from webhooks.admin.views import PagesAdmin, is_allowed
from webhooks.health import figures
from webhooks.models import Delivery, DeliveryAttempt, Subscription
from webhooks.models.subscription import Status
from webhooks.templatetags.webhooks_admin import CHIPS, number

#: Deliveries in the list.
LISTED: Final = 50


def overview(page: PagesAdmin, request: HttpRequest, pk: str) -> dict[str, Any]:
    """All that the template shows; a constant number of statements."""
    known = Subscription.objects.defer("headers", "basic_auth")
    subscription = known.select_related("application", "user").get(pk=pk)
    found = health.of_subscription(subscription)
    chosen = ranges.chosen(request.GET, found.updated_at)
    sentence = health.sentence(found)
    period = figures.of(chosen.period, subscription.pk)
    return {
        "subscription": subscription,
        "health": found,
        "tone": CHIPS[found.status][0],
        "sentence": sentence,
        "reasons": [each for each in found.verdict.reasons if each.message not in sentence],
        "range": chosen,
        "throughput": throughput(period, chosen.labels),
        "latency": latency(period, chosen.labels),
        "application": subscription.application or "",
        "receives_all": "*" in (subscription.event_types or ()),
        "last_four": subscription.secrets.order_by("-pk").values_list("last_four", flat=True)[:3],
        "deliveries": _deliveries(page, request, subscription),
        "deliveries_url": page.list_url(
            request, Delivery, subscription__id__exact=subscription.pk, since=since(chosen.key)
        ),
        "answer": answer_of(request.GET.get("sent", ""), subscription),
        "actions": _actions(page, request, subscription),
    }


def answer_of(pk: str, subscription: Subscription) -> dict[str, Any] | None:
    """What the endpoint said to the ping or example that was just sent: ``200 OK in 84 ms``."""
    if not pk.startswith("att_"):
        return None
    try:
        attempt = DeliveryAttempt.objects.get(
            pk=pk, subscription_id=subscription.pk, trigger=DeliveryAttempt.Trigger.PING
        )
    except (ObjectDoesNotExist, ValidationError):
        return None
    fix = remedies.remedy(attempt.error_code).fix
    return {"text": told(attempt), "is_good": not attempt.error_code, "fix": fix}


def told(attempt: DeliveryAttempt) -> str:
    """How one POST ended, and in what time."""
    if attempt.status_code is None:
        what = remedies.remedy(attempt.error_code).title or attempt.error_code
    else:
        known = {each.value: each.phrase for each in HTTPStatus}
        what = f"{attempt.status_code} {known.get(attempt.status_code, '')}".strip()
    return _("%(what)s in %(ms)s ms") % {"what": what, "ms": number(attempt.elapsed_ms)}


def _deliveries(
    page: PagesAdmin, request: HttpRequest, subscription: Subscription
) -> list[tuple[Delivery, str]]:
    """The last ones, each with the address of its page."""
    newest = (
        Delivery.objects.filter(subscription_id=subscription.pk)
        .select_related("event")
        .defer("event__data")
        .order_by("-pk")[:LISTED]
    )
    return [(each, page.change_url(request, Delivery, each.pk)) for each in newest]


def _actions(page: PagesAdmin, request: HttpRequest, subscription: Subscription) -> dict[str, Any]:
    """The addresses of what this user may do to it as it is; "" for anything else."""
    status = subscription.status
    ended = status == Status.UNSUBSCRIBED
    sendable = not ended and status != Status.PENDING

    def address(name: str, permission: str, possible: bool) -> str:
        allowed = possible and is_allowed(request, permission)
        return page.url(name, subscription) if allowed else ""

    example = address("example", "ping_subscription", sendable)
    return {
        "ping": address("ping", "ping_subscription", sendable),
        "example": example,
        "types": probing.received_types(subscription) if example else (),
        "suspend": address("suspend", "suspend_subscription", status == Status.SUBSCRIBED),
        "resume": address("resume", "suspend_subscription", status == Status.SUSPENDED),
        "rotate": address("rotate", "rotate_secret_subscription", not ended),
        "replay": address("replay", "replay_delivery", sendable),
        "unsubscribe": address("unsubscribe", "delete_subscription", not ended),
    }
