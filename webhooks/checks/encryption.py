"""Checks of the keys that seal secrets at rest. No message shows one."""

from __future__ import annotations

from typing import Any, Final

from cryptography.fernet import Fernet
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, register

from webhooks.checks.reading import value

MAKE_ONE: Final = (
    "Make one with python -c 'from cryptography.fernet import Fernet; "
    "print(Fernet.generate_key().decode())' and keep it outside the repository."
)


@register("webhooks")
def check_encryption_keys(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """E003: no keys outside of DEBUG. E004: what is there are no keys."""
    keys = value("ENCRYPTION_KEYS")
    if not isinstance(keys, list | tuple):
        return [
            Error(
                "WEBHOOKS['ENCRYPTION_KEYS'] must be a list of Fernet keys, newest first; it is "
                f"of type {type(keys).__name__}.",
                hint="Write [key], with brackets, also where there is but one.",
                id="webhooks.E004",
            )
        ]
    if not keys and not django_settings.DEBUG:
        return [
            Error(
                "WEBHOOKS['ENCRYPTION_KEYS'] is empty and DEBUG is off: signing secrets cannot be "
                "stored, and nothing is sent unsigned.",
                hint=MAKE_ONE,
                id="webhooks.E003",
            )
        ]
    return [
        Error(
            f"WEBHOOKS['ENCRYPTION_KEYS'][{place}] is no Fernet key (32 bytes in URL-safe base64): "
            "what it should seal or open fails.",
            hint=MAKE_ONE,
            id="webhooks.E004",
        )
        for place, key in enumerate(keys)
        if not _is_fernet_key(key)
    ]


def _is_fernet_key(key: Any) -> bool:
    try:
        Fernet(key)
    except (ValueError, TypeError, AttributeError):
        return False
    return isinstance(key, str)
