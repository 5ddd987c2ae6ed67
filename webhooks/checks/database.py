"""Checks of the database that holds the outbox. It is read from the settings, never asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from django.core.checks import CheckMessage, Error, Warning, register
from django.db import connections

from webhooks.checks.reading import given, value
from webhooks.conf import settings

SQLITE_OPTIONS: Final = (
    '"OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20, '
    '"init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"}'
)


@register("webhooks")
def check_database(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """E006: isolation. W001, W002: a SQLite outbox that locks itself out."""
    alias = value("DATABASE") if isinstance(given(), Mapping) else "default"
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
