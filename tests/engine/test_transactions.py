"""Transactions that are run again where the database asks for it."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.db import IntegrityError, OperationalError, connection, connections, transaction

from webhooks.engine.transactions import atomically
from webhooks.models import Duty

pytestmark = pytest.mark.django_db(transaction=True)


def counted() -> int:
    return Duty.objects.get(name="prune").counter


class Work:
    """Adds one to a counter in the database, and fails the first times."""

    def __init__(self, error: type[Exception], times: int = 1) -> None:
        Duty.objects.ensure()
        self.error, self.times, self.runs = error, times, 0

    def __call__(self) -> str:
        self.runs += 1
        Duty.objects.note("prune", add=1)
        if self.runs <= self.times:
            raise self.error("deadlock detected")
        return "done"


def test_what_the_database_asks_to_repeat_is_done_once_in_all() -> None:
    work = Work(OperationalError, times=3)
    assert atomically("default", work) == "done"
    assert (work.runs, counted()) == (4, 1)


def test_other_errors_are_raised_at_once_and_undone() -> None:
    work = Work(IntegrityError)
    with pytest.raises(IntegrityError):
        atomically("default", work)
    assert (work.runs, counted()) == (1, 0)


def test_patience_ends() -> None:
    work = Work(OperationalError, times=10**6)
    began = time.monotonic()
    with pytest.raises(OperationalError):
        atomically("default", work, patience=0.5)
    assert 0.4 < time.monotonic() - began < 2.5
    assert counted() == 0


def test_within_a_transaction_of_the_caller_nothing_is_repeated() -> None:
    work = Work(OperationalError)
    with pytest.raises(OperationalError), transaction.atomic():
        atomically("default", work)
    assert (work.runs, counted()) == (1, 0)


def test_on_sqlite_it_begins_as_a_writer_whatever_the_hosts_setting() -> None:
    if connection.vendor != "sqlite":
        pytest.skip("needs SQLite")
    own: Any = connections["default"]
    own.ensure_connection()
    usual = own.transaction_mode
    own.transaction_mode = "DEFERRED"
    begun: list[str] = []

    def watch(execute: Any, sql: str, *args: Any) -> Any:
        begun.append(sql)
        return execute(sql, *args)

    try:
        with own.execute_wrapper(watch):
            atomically("default", Duty.objects.ensure)
        assert begun[0] == "BEGIN IMMEDIATE"
        assert own.transaction_mode == "DEFERRED"
    finally:
        own.transaction_mode = usual
