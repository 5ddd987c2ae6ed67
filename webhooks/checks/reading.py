"""The setting ``WEBHOOKS`` as the checks read it: whatever a project wrote, without failing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.conf import settings as django_settings

from webhooks.checks.rules import RULES
from webhooks.conf import DEFAULTS


def given() -> Any:
    """What the project wrote, of any type."""
    return getattr(django_settings, "WEBHOOKS", {})


def value(key: str) -> Any:
    """The key's value; its default where the value makes no sense and has a message already."""
    written = given()
    found = written.get(key, DEFAULTS[key]) if isinstance(written, Mapping) else DEFAULTS[key]
    rule = RULES.get(key)
    return DEFAULTS[key] if rule is not None and rule[1](found) else found


def shown(what: Any) -> str:
    """A value as a message may show it; never that of a key that may hold a secret."""
    text = repr(what)
    return text if len(text) <= 80 else f"{text[:79]}…"
