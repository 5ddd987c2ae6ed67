"""The demo's subscribers: a subscription, made over the API, and a receiver process for each."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from django.utils import timezone

from example_project.demo.api import Api
from example_project.demo.processes import Child, Children
from example_project.demo.services import CLIENT_ID
from webhooks.models import Subscription

#: Who owns the demo's campaigns and subscriptions, in the words of the webhooks.
REQUESTER: Final = f"app:{CLIENT_ID}"

#: Two subscribers, so that one event may mean two deliveries.
EVENT_TYPES: Final = {"everything": ["push.*"], "clicks": ["push.clicked"]}

#: One of them gets the counts of the same events besides, each time an hour ends.
DIGEST: Final = "digest"
DIGEST_FOR: Final = "everything"
#: Where hours end at different minutes. An hour is the shortest window there is, so whoever wants
#: to see a digest soon asks for it in the zone whose hour ends first: within 30 minutes.
ZONES: Final = ("UTC", "Asia/Kolkata", "Asia/Kathmandu")


@dataclass(frozen=True, slots=True)
class Subscriber:
    """A subscription and the socket on which its receiver will listen.

    digest, digest_secret: a second subscription of the same receiver, to counts; None: it has none.
    """

    name: str
    subscription: Subscription
    secret: str
    listener: socket.socket
    digest: Subscription | None = None
    digest_secret: str = ""

    @property
    def origin(self) -> str:
        """Where its receiver answers ``/figures`` and ``/messages``."""
        url = urlsplit(self.subscription.callback_url)
        return f"{url.scheme}://{url.netloc}"


def assemble(api: Api, *, keep: bool) -> list[Subscriber]:
    """The subscribers, each with a live subscription and a listening socket.

    keep: go on with the subscriptions of the last run where their ports are free, so that what was
    left undelivered arrives now. Those that are not gone on with are unsubscribed: nobody would
    listen for them.
    """
    found: dict[str, Subscriber] = {}
    digests = []
    names = {_description(name): name for name in (*EVENT_TYPES, DIGEST)}
    for subscription in list(api.subscriptions(status="subscribed")):
        name = names.get(subscription["description"])
        if name is None:
            continue
        if name == DIGEST:
            digests.append(subscription)
            continue
        if keep and name not in found:
            with suppress(OSError):
                listener = _listen(urlsplit(subscription["callback_url"]).port or 0)
                # A secret is told once, so whoever has lost it asks for another.
                secret = api.rotate_secret(subscription["id"])
                found[name] = _subscriber(name, subscription, secret, listener)
                continue
        api.unsubscribe(subscription["id"])
    subscribers = [found.get(name) or _subscribe(api, name) for name in EVENT_TYPES]
    return [
        _with_digest(api, each, digests) if each.name == DIGEST_FOR else each
        for each in subscribers
    ]


def start_receivers(
    children: Children, subscribers: Sequence[Subscriber], *, fail: float, seed: int
) -> list[Child]:
    """Start the receivers' processes, which answer the share ``fail`` of requests with 500."""
    started = []
    for subscriber in subscribers:
        descriptor = subscriber.listener.fileno()
        arguments = ["-m", "example_project.receiver", "--fd", str(descriptor)]
        for secret in filter(None, (subscriber.secret, subscriber.digest_secret)):
            arguments += ["--secret", secret]
        arguments += ["--fail", str(fail), "--seed", str(seed)]
        started.append(
            children.start(f"subscriber-{subscriber.name}", arguments, sockets=[descriptor])
        )
        # From here on only the child listens: if it dies, connections are refused.
        subscriber.listener.close()
    return started


def rows(
    subscribers: Sequence[Subscriber], receivers: Sequence[Child], fail: float
) -> list[tuple[str, str, str]]:
    """What to print about them."""
    return [
        (
            f"subscriber {each.name}",
            f"{each.origin}/figures <- {', '.join(each.subscription.event_types)}"
            + (f" and {each.digest.trigger} counts" if each.digest else ""),
            f"pid {child.pid}, fails {fail:.0%} of requests",
        )
        for each, child in zip(subscribers, receivers, strict=True)
    ]


def soonest_zone(now: datetime) -> str:
    """The time zone of ``ZONES`` in which the hour ends first."""
    return max(ZONES, key=lambda zone: now.astimezone(ZoneInfo(zone)).minute)


def _with_digest(api: Api, subscriber: Subscriber, known: Sequence[dict[str, Any]]) -> Subscriber:
    """The subscriber with a subscription to digests at the same receiver, an old one or a new."""
    url = f"{subscriber.origin}/digests"
    kept = None
    for subscription in known:
        if kept is None and subscription["callback_url"] == url:
            kept, secret = subscription, api.rotate_secret(subscription["id"])
        else:
            api.unsubscribe(subscription["id"])
    if kept is None:
        kept = api.subscribe(
            callback_url=url,
            event_types=EVENT_TYPES[subscriber.name],
            description=_description(DIGEST),
            trigger="hourly",
            time_zone=soonest_zone(timezone.now()),
            content="counts",
        )
        secret = kept["secret"]
    digest = Subscription.objects.get(pk=kept["id"])
    return replace(subscriber, digest=digest, digest_secret=secret)


def _description(name: str) -> str:
    return f"manage.py demo: {name}"


def _subscribe(api: Api, name: str) -> Subscriber:
    listener = _listen(0)
    subscription = api.subscribe(
        callback_url=f"http://127.0.0.1:{listener.getsockname()[1]}/webhooks",
        event_types=EVENT_TYPES[name],
        description=_description(name),
    )
    return _subscriber(name, subscription, subscription["secret"], listener)


def _subscriber(
    name: str, told: dict[str, Any], secret: str, listener: socket.socket
) -> Subscriber:
    # The row is for the figures and the tie-out, which read the webhooks' own books.
    return Subscriber(name, Subscription.objects.get(pk=told["id"]), secret, listener)


def _listen(port: int) -> socket.socket:
    """A listening socket for a child to inherit: its port cannot be lost to anybody else."""
    return socket.create_server(("127.0.0.1", port), backlog=1024)
