"""Checks of ``check --deploy``: what is meant for development, and opens a way in elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network, ip_network
from typing import Any, Final
from urllib.parse import urlsplit

from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Warning, register

from webhooks import cluster
from webhooks.checks.reading import value
from webhooks.conf import DEFAULTS
from webhooks.transports.addresses import (
    NOT_PUBLIC_V4,
    NOT_PUBLIC_V6,
    PUBLIC_V6,
    Network,
    is_denied,
    is_private_name,
    is_public,
    parse_address,
)

LOOPBACK: Final = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
#: Caches that count for one process, or for nobody.
UNSHARED: Final = ("locmem.LocMemCache", "dummy.DummyCache")


@register("webhooks", deploy=True)
def check_addresses(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W010: loopback. W013: other private networks. W014: our own hosts."""
    found: list[CheckMessage] = []
    networks = [ip_network(text, strict=False) for text in value("ALLOWED_NETWORKS")]
    local = [each for each in networks if any(each.overlaps(own) for own in LOOPBACK)]
    if local:
        found.append(
            Warning(
                "WEBHOOKS['ALLOWED_NETWORKS'] has loopback addresses: whoever may subscribe can "
                "make this server send requests to its own services.",
                hint="Allow 127.0.0.0/8 and ::1 in development only.",
                id="webhooks.W010",
            )
        )
    private = [each for each in networks if each not in local and _has_private(each)]
    if private:
        found.append(
            Warning(
                f"WEBHOOKS['ALLOWED_NETWORKS'] has {', '.join(map(str, private))}: whoever may "
                "subscribe can make this server send requests to every host in there.",
                hint="Leave it out; or, where subscribers do live in there, name no more than "
                "their hosts and put webhooks.W013 into SILENCED_SYSTEM_CHECKS.",
                id="webhooks.W013",
            )
        )
    if own := _open_hosts():
        found.append(
            Warning(
                f"WEBHOOKS['DENIED_HOSTS'] lacks {', '.join(own)}: a subscriber could aim our "
                "signed POSTs at this project itself.",
                hint=f"Add to it: {', '.join(map(repr, own))}; and the addresses that they lead "
                "to, for other names may lead there too.",
                id="webhooks.W014",
            )
        )
    return found


def _has_private(network: Network) -> bool:
    if isinstance(network, IPv4Network):
        return any(network.overlaps(each) for each in NOT_PUBLIC_V4)
    special = any(network.overlaps(each) for each in NOT_PUBLIC_V6)
    return special or not network.subnet_of(PUBLIC_V6)


def _open_hosts() -> list[str]:
    """The project's own hosts, as its settings tell them, that a callback URL may name."""
    allowed = django_settings.ALLOWED_HOSTS
    told = [host for host in allowed if isinstance(host, str) and host.strip(".") not in ("", "*")]
    base = urlsplit(value("BASE_URL")).hostname
    denied = tuple(value("DENIED_HOSTS"))
    found = dict.fromkeys(host.lower() for host in (*told, *([base] if base else [])))
    return [host for host in found if _may_be_public(host) and not is_denied(host, denied)]


def _may_be_public(host: str) -> bool:
    literal = host.strip("[]")
    if parse_address(literal) is not None:
        return is_public(literal)
    return not is_private_name(literal.removeprefix("."))


@register("webhooks", deploy=True)
def check_reach(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W011: http. W012: any port. W018: links in plain http."""
    found: list[CheckMessage] = []
    if value("ALLOW_HTTP"):
        found.append(
            Warning(
                "WEBHOOKS['ALLOW_HTTP'] is on: events may travel in plain text, for anybody on the "
                "way to read.",
                hint="Turn it off; subscribers need a URL that begins with https://.",
                id="webhooks.W011",
            )
        )
    if value("ALLOWED_PORTS") == "any":
        found.append(
            Warning(
                "WEBHOOKS['ALLOWED_PORTS'] is 'any': callback URLs may point at every service of a "
                "public host, mail and databases included.",
                hint=f"List the ports that subscribers may use, e.g. {DEFAULTS['ALLOWED_PORTS']}.",
                id="webhooks.W012",
            )
        )
    if urlsplit(value("BASE_URL")).scheme == "http":
        found.append(
            Warning(
                "WEBHOOKS['BASE_URL'] begins with http://: who follows our links sends its access "
                "token in plain text.",
                hint="Serve the project over https, and begin BASE_URL with https://.",
                id="webhooks.W018",
            )
        )
    return found


@register("webhooks", deploy=True)
def check_traffic(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W015, W016: throttles that hold nobody. W017: a cluster that is shared with the host."""
    found: list[CheckMessage] = []
    if free := [name for name, rate in value("THROTTLES").items() if rate is None]:
        found.append(
            Warning(
                f"WEBHOOKS['THROTTLES'] sets no limit for {', '.join(free)}: one client can make "
                "this server look up names and send POSTs without end.",
                hint="Give each a rate, e.g. '60/min', or leave it out for the default.",
                id="webhooks.W015",
            )
        )
    caches = getattr(django_settings, "CACHES", {})
    default = caches.get("default") if isinstance(caches, dict) else None
    backend = default.get("BACKEND") if isinstance(default, dict) else None
    if isinstance(backend, str) and backend.endswith(UNSHARED):
        found.append(
            Warning(
                f"CACHES['default'] is {backend}, in which throttles count for each process alone, "
                "or not at all: WEBHOOKS['THROTTLES'] lets through more than it says.",
                hint="Use a cache that all processes share: Redis, Memcached or the database.",
                id="webhooks.W016",
            )
        )
    main = getattr(django_settings, "Q_CLUSTER", {})
    shared = (None, cluster.queues(main)[0]) if isinstance(main, Mapping) else (None,)
    if value("WAKER") is not None and value("CLUSTER") in shared:
        found.append(
            Warning(
                f"WEBHOOKS['CLUSTER'] is {value('CLUSTER')!r}: deliveries share the default "
                "django-q2 cluster with the project's own tasks, and slow subscribers hold those "
                "up.",
                hint="Add a cluster to Q_CLUSTER['ALT_CLUSTERS'] and name it in CLUSTER.",
                id="webhooks.W017",
            )
        )
    return found
