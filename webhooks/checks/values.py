"""Checks of the settings dict: its keys, each key's value, and what values must be together."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any, Final

from django.core.checks import CheckMessage, Error, Warning, register

from webhooks.checks.reading import given, shown, value
from webhooks.checks.rules import RULES
from webhooks.conf import DEFAULTS

#: Keys whose values may hold a password, and are not repeated.
HUSHED: Final = frozenset({"EGRESS_PROXY"})
#: Prefix lengths of the largest private ranges, 10.0.0.0/8 and fc00::/7, by IP version.
WIDEST: Final = {4: 8, 6: 7}


@register("webhooks")
def check_keys(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """E001: no dict. E002: a key that nothing reads."""
    written = given()
    if not isinstance(written, Mapping):
        return [
            Error(
                f"The setting WEBHOOKS is {shown(written)}, not a dict: nothing in it can be read.",
                hint="Make it a dict, or remove it to have every default.",
                id="webhooks.E001",
            )
        ]
    found: list[CheckMessage] = []
    for key in written:
        if key in DEFAULTS:
            continue
        near = difflib.get_close_matches(str(key).upper(), DEFAULTS, n=1, cutoff=0.5)
        found.append(
            Error(
                f"WEBHOOKS has no key {shown(key)}: nothing reads it.",
                hint=f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(DEFAULTS)}.",
                id="webhooks.E002",
            )
        )
    return found


@register("webhooks")
def check_values(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """A value that its key cannot have; each key has an id of its own, in ``RULES``."""
    written = given() if isinstance(given(), Mapping) else {}
    return [
        Error(
            f"WEBHOOKS[{key!r}] is {_told(key, written[key])}; it {wrong}.",
            hint=f"Correct it, or leave the key out: its default is {shown(DEFAULTS[key])}.",
            id=f"webhooks.{id_}",
        )
        for key, (id_, problem) in RULES.items()
        if key in written and (wrong := problem(written[key]))
    ]


def _told(key: str, what: Any) -> str:
    if key in HUSHED:
        return f"of type {type(what).__name__} (its value may hold a password)"
    return shown(what)


@register("webhooks")
def check_relations(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """E005: a lease that may end while a POST is in flight. W007: retries that never come."""
    found: list[CheckMessage] = []
    lease, timeout = value("LEASE_SECONDS"), value("TIMEOUT")
    least = 2 * timeout + 15
    if lease < least:
        found.append(
            Error(
                f"WEBHOOKS['LEASE_SECONDS'] is {lease}, less than 2 * TIMEOUT + 15 = {least}: a "
                "worker could lose a lane whose POST it has begun, and another one would send it "
                "again.",
                hint=f"Set LEASE_SECONDS to {least} or more, or TIMEOUT lower.",
                id="webhooks.E005",
            )
        )
    whole, age = sum(value("RETRY_SCHEDULE")), value("MAX_AGE")
    if whole > age:
        found.append(
            Warning(
                f"WEBHOOKS['RETRY_SCHEDULE'] lasts {whole:g} seconds, longer than MAX_AGE "
                f"({age:g}): its last retries never come.",
                hint=f"Set MAX_AGE above {whole:g}, or shorten the schedule.",
                id="webhooks.W007",
            )
        )
    return found


@register("webhooks")
def check_wide_networks(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """E036: a network that takes the whole guard away."""
    return [
        Error(
            f"WEBHOOKS['ALLOWED_NETWORKS'] has {text!r}, which is wider than any private network: "
            "callback URLs may lead to nearly every address, cloud metadata included.",
            hint="Name the networks of your own receivers, e.g. '10.1.2.0/24'. Public addresses "
            "need no entry.",
            id="webhooks.E036",
        )
        for text in value("ALLOWED_NETWORKS")
        if (network := ip_network(text, strict=False)).prefixlen < WIDEST[network.version]
    ]
