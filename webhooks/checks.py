"""System checks: every misconfiguration that can be seen without a connection, each with its id.

``E001`` to ``E007`` judge the settings as a whole, ``E010`` to ``E033`` one key each, ``E034`` the
project's times, ``E040`` to ``E046`` the django-q2 cluster that runs our tasks
(:mod:`webhooks.cluster`); ``W010`` to ``W012`` come with ``check --deploy``.
Nothing here opens a connection, shows a secret, or fails on a value that makes no sense.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_network
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography.fernet import Fernet
from django.apps import apps
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.db import connections
from django.urls import get_resolver
from django.utils.module_loading import import_string

from webhooks import cluster
from webhooks.access import READ, WRITE
from webhooks.conf import DEFAULTS, settings

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
#: As Django REST framework reads them.
_RATE: Final = re.compile(r"[1-9][0-9]{0,8}/(s|m|h|d|sec|min|hour|day|second|minute)")
SQLITE_OPTIONS = (
    '"OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20, '
    '"init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"}'
)


# What a value must be: each of these says what is wrong with one, or "".


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _list_of(value: Any, accepts: Callable[[Any], bool]) -> bool:
    return isinstance(value, list | tuple) and all(accepts(each) for each in value)


def _is_count(value: Any) -> str:
    return "" if _is_whole(value) and value > 0 else "must be a whole number above 0"


def _is_duration(value: Any) -> str:
    return "" if _is_number(value) and 0 < value < 1e9 else "must be a number of seconds above 0"


def _is_alias(value: Any) -> str:
    if value is None or (isinstance(value, str) and value in connections.settings):
        return ""
    return f"must be None or an alias of DATABASES ({', '.join(connections.settings)})"


def _is_base_url(value: Any) -> str:
    try:
        split = urlsplit(value) if isinstance(value, str) else None
    except ValueError:
        split = None
    if value == "" or (split and split.scheme in ("http", "https") and split.netloc):
        return ""
    return "must be '' or an absolute URL, e.g. 'https://example.com'"


def _is_dotted_path(value: Any) -> str:
    if not isinstance(value, str):
        return "must be the dotted path of something that can be imported"
    try:
        found = import_string(value)
    except Exception as error:  # noqa: BLE001  (a module may raise anything as it is imported)
        return f"cannot be imported ({error})"
    return "" if callable(found) else "can be imported, but cannot be called"


def _is_schedule(value: Any) -> str:
    if _list_of(value, lambda wait: _is_number(wait) and wait > 0):
        return ""
    return "must be a list of numbers of seconds, each above 0"


def _is_switch(value: Any) -> str:
    return "" if isinstance(value, bool) else "must be True or False"


def _is_port_list(value: Any) -> str:
    if value == "any" or _list_of(value, lambda port: _is_whole(port) and 0 < port < 65_536):
        return ""
    return "must be 'any' or a list of ports, e.g. (443, 8443)"


def _is_network(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(ip_network(value, strict=False))
    except ValueError:
        return False


def _is_network_list(value: Any) -> str:
    if _list_of(value, _is_network):
        return ""
    return "must be a list of networks, e.g. ['10.1.0.0/16']"


def _is_host_list(value: Any) -> str:
    if _list_of(value, lambda host: isinstance(host, str)):
        return ""
    return "must be a list of host names, e.g. ['api.example.com']"


def _is_cluster_name(value: Any) -> str:
    if value is None or (isinstance(value, str) and value):
        return ""
    return "must be None or the name of a django-q2 cluster"


def _is_optional_path(value: Any) -> str:
    return "" if value is None else _is_dotted_path(value)


def _is_throttles(value: Any) -> str:
    names = DEFAULTS["THROTTLES"]
    if not isinstance(value, Mapping) or not set(value) <= set(names):
        return f"must be a dict of rates, with some of the keys {', '.join(names)}"
    wrong = [rate for rate in value.values() if rate is not None and not _is_rate(rate)]
    return "must have rates like '60/min' (sec, min, hour, day), or None" if wrong else ""


def _is_rate(value: Any) -> bool:
    return isinstance(value, str) and bool(_RATE.fullmatch(value))


#: What is asked of each key, with the id of its check. ENCRYPTION_KEYS has checks of its own.
RULES: Final[Mapping[str, tuple[str, Callable[[Any], str]]]] = {
    "DATABASE": ("E010", _is_alias),
    "BASE_URL": ("E011", _is_base_url),
    "TRANSPORT": ("E012", _is_dotted_path),
    "CONCURRENCY": ("E013", _is_count),
    "FLUSH_MAX": ("E014", _is_count),
    "DRAIN_SECONDS": ("E015", _is_duration),
    "WORKERS": ("E016", _is_count),
    "TIMEOUT": ("E017", _is_duration),
    "LEASE_SECONDS": ("E018", _is_duration),
    "RETRY_SCHEDULE": ("E019", _is_schedule),
    "MAX_AGE": ("E020", _is_duration),
    "MAX_PAYLOAD_BYTES": ("E021", _is_count),
    "MAX_SUBSCRIPTIONS": ("E022", _is_count),
    "ALLOW_HTTP": ("E023", _is_switch),
    "ALLOWED_PORTS": ("E024", _is_port_list),
    "ALLOWED_NETWORKS": ("E025", _is_network_list),
    "DENIED_HOSTS": ("E026", _is_host_list),
    "CLUSTER": ("E027", _is_cluster_name),
    "WAKER": ("E028", _is_optional_path),
    "RETENTION_DAYS": ("E029", _is_count),
    "REQUESTER": ("E030", _is_dotted_path),
    "ENTITLEMENT": ("E031", _is_optional_path),
    "THROTTLES": ("E032", _is_throttles),
    "SOURCE_IPS": ("E033", _is_network_list),
}


def _given() -> Any:
    return getattr(django_settings, "WEBHOOKS", {})


def _value(key: str) -> Any:
    """The key's value; its default where the value makes no sense and has a message already."""
    given = _given()
    value = given.get(key, DEFAULTS[key]) if isinstance(given, Mapping) else DEFAULTS[key]
    rule = RULES.get(key)
    return DEFAULTS[key] if rule is not None and rule[1](value) else value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


@register("webhooks")
def check_keys(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """E001: no dict. E002: a key that nothing reads."""
    given = _given()
    if not isinstance(given, Mapping):
        return [
            Error(
                f"The setting WEBHOOKS is {_shown(given)}, not a dict: nothing in it can be read.",
                hint="Make it a dict, or remove it to have every default.",
                id="webhooks.E001",
            )
        ]
    found: list[CheckMessage] = []
    for key in given:
        if key in DEFAULTS:
            continue
        near = difflib.get_close_matches(str(key).upper(), DEFAULTS, n=1, cutoff=0.5)
        found.append(
            Error(
                f"WEBHOOKS has no key {_shown(key)}: nothing reads it.",
                hint=f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(DEFAULTS)}.",
                id="webhooks.E002",
            )
        )
    return found


@register("webhooks")
def check_values(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """E010 to E033: a value that its key cannot have."""
    given = _given() if isinstance(_given(), Mapping) else {}
    return [
        Error(
            f"WEBHOOKS[{key!r}] is {_shown(given[key])}; it {wrong}.",
            hint=f"Correct it, or leave the key out: its default is {_shown(DEFAULTS[key])}.",
            id=f"webhooks.{id_}",
        )
        for key, (id_, problem) in RULES.items()
        if key in given and (wrong := problem(given[key]))
    ]


@register("webhooks")
def check_encryption_keys(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """E003: no keys outside of DEBUG. E004: what is there are no keys."""
    hint = (
        "Make one with python -c 'from cryptography.fernet import Fernet; "
        "print(Fernet.generate_key().decode())' and keep it outside the repository."
    )
    keys = _value("ENCRYPTION_KEYS")
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
                hint=hint,
                id="webhooks.E003",
            )
        ]
    return [
        Error(
            f"WEBHOOKS['ENCRYPTION_KEYS'][{place}] is no Fernet key (32 bytes in URL-safe base64): "
            "what it should seal or open fails.",
            hint=hint,
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


@register("webhooks")
def check_lease(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """E005: a lease that may end while its holder still has a POST in flight."""
    lease, timeout = _value("LEASE_SECONDS"), _value("TIMEOUT")
    least = 2 * timeout + 15
    if lease >= least:
        return []
    return [
        Error(
            f"WEBHOOKS['LEASE_SECONDS'] is {lease}, less than 2 * TIMEOUT + 15 = {least}: a worker "
            "could lose a lane whose POST it has begun, and another one would send it again.",
            hint=f"Set LEASE_SECONDS to {least} or more, or TIMEOUT lower.",
            id="webhooks.E005",
        )
    ]


@register("webhooks")
def check_apps(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """E007: an app that this one rests upon is not installed."""
    reasons = {
        "django_q": "its tasks and schedules deliver the events",
        "oauth2_provider": "its applications own the subscriptions",
    }
    return [
        Error(
            f"{name!r} is missing from INSTALLED_APPS: {reason}.",
            hint=f"Add {name!r} to INSTALLED_APPS and run manage.py migrate.",
            id="webhooks.E007",
        )
        for name, reason in reasons.items()
        if not apps.is_installed(name)
    ]


@register("webhooks")
def check_time_zones(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """E034: times without a zone, of which nobody knows when they are."""
    if django_settings.USE_TZ:
        return []
    return [
        Error(
            "USE_TZ is False: the times of events and attempts would have no zone, and no message "
            "could say when its event happened.",
            hint="Set USE_TZ = True.",
            id="webhooks.E034",
        )
    ]


@register("webhooks")
def check_scopes(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W006: the API is mounted, and no token can be granted what it asks for."""
    if not apps.is_installed("oauth2_provider") or "webhooks" not in get_resolver().app_dict:
        return []
    from oauth2_provider.scopes import get_scopes_backend

    missing = {READ, WRITE} - set(get_scopes_backend().get_all_scopes())
    if not missing:
        return []
    return [
        Warning(
            f"The API is mounted, but the authorization server knows no scope "
            f"{' and no scope '.join(sorted(missing))}: every token is refused.",
            hint=f"Add to settings: OAUTH2_PROVIDER = {{'SCOPES': {{{READ!r}: 'Read webhooks', "
            f"{WRITE!r}: 'Change webhooks'}}}}.",
            id="webhooks.W006",
        )
    ]


@register("webhooks")
def check_database(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """E006: isolation. W001, W002: a SQLite outbox that locks itself out."""
    alias = _value("DATABASE") if isinstance(_given(), Mapping) else "default"
    alias = alias or settings.database
    if alias not in connections.settings:
        return []
    options = connections.settings[alias].get("OPTIONS")
    options = options if isinstance(options, Mapping) else {}
    vendor = connections[alias].vendor  # makes the wrapper; it connects when it is first asked
    if vendor == "sqlite":
        return list(_sqlite(alias, options))
    if _reads_committed(vendor, options):
        return []
    return [
        Error(
            f"The isolation level of DATABASES[{alias!r}], which holds the outbox, is not READ "
            "COMMITTED. A worker that lets go of a lane locks it and then reads what is due; in "
            "any other level it reads what was due before, and leaves deliveries behind.",
            hint="Remove 'isolation_level' from its OPTIONS, or keep the outbox in a database of "
            "its own with WEBHOOKS['DATABASE'].",
            id="webhooks.E006",
        )
    ]


def _reads_committed(vendor: str, options: Mapping[Any, Any]) -> bool:
    if vendor == "postgresql":
        from django.db.backends.postgresql.psycopg_any import IsolationLevel

        level = options.get("isolation_level", IsolationLevel.READ_COMMITTED)
        return bool(level == IsolationLevel.READ_COMMITTED)
    if vendor == "mysql":
        level = options.get("isolation_level", "read committed")
        return isinstance(level, str) and level.lower() == "read committed"
    return True


def _sqlite(alias: str, options: Mapping[Any, Any]) -> Iterator[CheckMessage]:
    if str(options.get("transaction_mode")).upper() not in ("IMMEDIATE", "EXCLUSIVE"):
        yield Warning(
            f"DATABASES[{alias!r}] is SQLite without transaction_mode IMMEDIATE: a transaction "
            "that reads first and then writes fails at once ('database is locked') whenever a "
            "worker wrote in between.",
            hint=f"Put this into DATABASES[{alias!r}]: {SQLITE_OPTIONS}",
            id="webhooks.W001",
        )
    told = "".join(str(options.get("init_command", "")).lower().split())
    if "journal_mode=wal" not in told and "journal_mode(wal)" not in told:
        yield Warning(
            f"DATABASES[{alias!r}] is SQLite without a write-ahead log: readers and the workers "
            "that write wait for each other.",
            hint=f"Put this into DATABASES[{alias!r}]: {SQLITE_OPTIONS}",
            id="webhooks.W002",
        )


@register("webhooks")
def check_cluster(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """E040 to E046, W003 to W005: the django-q2 cluster that runs our tasks."""
    if _value("WAKER") is None:
        return []  # nobody is woken: manage.py webhooks_worker delivers, without django-q2
    return list(
        cluster.judge(
            getattr(django_settings, "Q_CLUSTER", {}),
            _value("CLUSTER"),
            drain_seconds=_value("DRAIN_SECONDS"),
            post_seconds=_value("TIMEOUT"),
        )
    )


@register("webhooks", deploy=True)
def check_deploy(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W010 to W012: what is meant for development, and opens a way in elsewhere."""
    found: list[CheckMessage] = []
    networks = [ip_network(text, strict=False) for text in _value("ALLOWED_NETWORKS")]
    if any(network.overlaps(own) for network in networks for own in LOOPBACK):
        found.append(
            Warning(
                "WEBHOOKS['ALLOWED_NETWORKS'] has loopback addresses: whoever may subscribe can "
                "make this server send requests to its own services.",
                hint="Allow 127.0.0.0/8 and ::1 in development only.",
                id="webhooks.W010",
            )
        )
    if _value("ALLOW_HTTP"):
        found.append(
            Warning(
                "WEBHOOKS['ALLOW_HTTP'] is on: events may travel in plain text, for anybody on the "
                "way to read.",
                hint="Turn it off; subscribers need a URL that begins with https://.",
                id="webhooks.W011",
            )
        )
    if _value("ALLOWED_PORTS") == "any":
        found.append(
            Warning(
                "WEBHOOKS['ALLOWED_PORTS'] is 'any': callback URLs may point at every service of a "
                "public host, mail and databases included.",
                hint=f"List the ports that subscribers may use, e.g. {DEFAULTS['ALLOWED_PORTS']}.",
                id="webhooks.W012",
            )
        )
    return found
