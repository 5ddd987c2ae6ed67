"""The one settings dict, ``WEBHOOKS``, read live.

``from webhooks.conf import settings`` and ask ``settings.TIMEOUT``: the value comes from
``django.conf.settings.WEBHOOKS`` at that moment, so ``override_settings`` just works. Defaults
stand here and nowhere else; :mod:`webhooks.checks` refuses unknown keys and unusable values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.apps import apps
from django.conf import settings as django_settings
from django.db import router
from django.utils.module_loading import import_string

#: Every key that ``WEBHOOKS`` may hold, with its default.
DEFAULTS: Final[Mapping[str, Any]] = {
    # Where the outbox lives: a database alias; None: where the router writes ``Event``.
    "DATABASE": None,
    # Absolute URL of the host project, for links sent to subscribers ("" when there is none).
    "BASE_URL": "",
    # The ``source`` of CloudEvents, a URI; subscriptions cannot have that format without it.
    "CLOUDEVENTS_SOURCE": "",
    # The host's own formats: name -> dotted path of a webhooks.formats.Format class.
    "FORMATS": {},
    # Dotted path of the Transport class that sends the POSTs. The default needs nothing but
    # requests, and a thread for each POST in flight. "webhooks.transports.curl.CurlTransport"
    # costs a fraction of its CPU, keeps hundreds in flight and speaks HTTP/2
    # (pip install django-webhook-delivery[curl]).
    "TRANSPORT": "webhooks.transports.requests.RequestsTransport",
    # POSTs in flight for each worker; None: what the transport is made for (curl's 128, others 32).
    "CONCURRENCY": None,
    # Results that a worker gathers before it writes them (it also writes every 200 ms).
    "FLUSH_MAX": 500,
    # Length of one drain, in seconds; then it hands on to a new task.
    "DRAIN_SECONDS": 10,
    # Drain tasks that may run at once in the whole service.
    "WORKERS": 4,
    # Seconds for one POST in all: DNS, connect, TLS, send, receive.
    "TIMEOUT": 15,
    # How long a worker holds a lane without renewing it, in seconds; at least 2 * TIMEOUT + 15.
    "LEASE_SECONDS": 60,
    # Seconds to wait after each failed try; one try more than entries, then dead letter.
    "RETRY_SCHEDULE": (5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400),
    # After a failure, a delivery whose next try would lie more than so many seconds behind its
    # first due time is not tried again. The time in which its lane stands still does not count.
    "MAX_AGE": 96 * 3600,
    # What is pending for a subscription that has been suspended for so many seconds expires.
    "SUSPENDED_MAX_AGE": 30 * 86_400,
    # A subscription is suspended after so many seconds without a success (None: never), with at
    # least so many failures: five or more, for nobody is suspended who was not told that it fails.
    "AUTO_SUSPEND_SECONDS": 5 * 86_400,
    "AUTO_SUSPEND_FAILURES": 20,
    # Seconds between the probes of a subscription that was suspended for that; None: none.
    "PROBE_SECONDS": 86_400,
    # Bytes of an event's JSON.
    "MAX_PAYLOAD_BYTES": 256 * 1024,
    # Subscriptions that one requester may have.
    "MAX_SUBSCRIPTIONS": 100,
    # Dotted path of a callable: request -> whose subscriptions it may touch ("app:<client id>").
    "REQUESTER": "webhooks.access.requester_of",
    # Dotted path of a callable: owner -> whether the host lets it receive anything (a plan that is
    # paid, say); None: nothing is asked. The owner has requester, application_id and user_id.
    "ENTITLEMENT": None,
    # How often a requester may do what costs something: DRF rates, None for no limit.
    "THROTTLES": {
        "create": "60/min",
        "ping": "30/min",
        "rotate": "30/min",
        "replay": "30/min",
    },
    # Networks from which the POSTs come, told to subscribers for their firewalls.
    "SOURCE_IPS": (),
    # Operator policy for callback URLs.
    "ALLOW_HTTP": False,
    # Ports, or "any". While a project does not set it, hosts of ALLOWED_NETWORKS may use any: a
    # development server rarely listens on one of these.
    "ALLOWED_PORTS": (80, 443, 8080, 8443),
    "ALLOWED_NETWORKS": (),
    "DENIED_HOSTS": (),
    # URL of the HTTP proxy through which all POSTs leave: "http://host:port", with a user name and
    # a password where it wants them. It must allow CONNECT to the ports above. None: none; the
    # environment's proxies are never used.
    "EGRESS_PROXY": None,
    # Fernet keys for secrets at rest, newest first.
    "ENCRYPTION_KEYS": (),
    # The django-q2 cluster that runs our tasks; None: the default cluster.
    "CLUSTER": None,
    # Dotted path of a callable that wakes a worker; None: nobody is woken, workers poll.
    "WAKER": "webhooks.engine.wake.enqueue_drain",
    # Days that finished rows are kept.
    "RETENTION_DAYS": 30,
}


class WebhookSettings:
    """Attribute access to ``settings.WEBHOOKS`` over ``DEFAULTS``."""

    def __getattr__(self, name: str) -> Any:
        if name not in DEFAULTS:
            raise AttributeError(
                f"WEBHOOKS has no key {name!r}. Known keys: {', '.join(sorted(DEFAULTS))}."
            )
        return self.given().get(name, DEFAULTS[name])

    @staticmethod
    def given() -> Mapping[str, Any]:
        """What the host project wrote; empty when it wrote nothing."""
        return getattr(django_settings, "WEBHOOKS", None) or {}

    @property
    def concurrency(self) -> int:
        """POSTs that a worker has in flight at most. Raises ImportError for no transport."""
        if self.CONCURRENCY is not None:
            return int(self.CONCURRENCY)
        return int(import_string(self.TRANSPORT).default_concurrency)

    @property
    def database(self) -> str:
        """Alias of the database that holds the outbox and all that follows from it."""
        if self.DATABASE is not None:
            return str(self.DATABASE)
        return router.db_for_write(apps.get_model("webhooks", "Event"))


settings = WebhookSettings()
