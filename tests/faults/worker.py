"""A process of a test's own making: it may die at a chosen commit, and keeps a record of leases.

    python -m tests.faults.worker COMMAND...      # a manage command; or: emit COUNT REQUESTER

``WEBHOOKS_TEST_FAULTS`` holds JSON: ``constants`` (dotted name -> value) are set before anything
runs; ``die`` has ``sql`` (a pattern), ``at`` (``before`` or ``after``) and ``nth``: the process
kills itself around the nth commit of a transaction that held such a statement; ``leases`` is a
folder for records, see :mod:`tests.faults.leases`.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import sys
from typing import Any

import django

django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import transaction  # noqa: E402
from django.db.backends.base.base import BaseDatabaseWrapper  # noqa: E402
from django.db.backends.signals import connection_created  # noqa: E402

from tests.faults import leases  # noqa: E402
from webhooks import emit  # noqa: E402


def set_constants(constants: dict[str, Any]) -> None:
    for path, value in constants.items():
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name), path
        setattr(importlib.import_module(module), name, value)


def die_at(sql: str, at: str, nth: int) -> None:
    """Kill this process around the nth commit of what held such a statement."""
    pattern = re.compile(sql)
    matched: set[int] = set()
    commits = 0
    commit, rollback = BaseDatabaseWrapper._commit, BaseDatabaseWrapper._rollback

    def watch(execute: Any, statement: str, params: Any, many: bool, context: Any) -> Any:
        if pattern.search(statement):
            matched.add(id(context["connection"]))
        return execute(statement, params, many, context)

    def listen(connection: Any, **_: Any) -> None:
        if watch not in connection.execute_wrappers:
            connection.execute_wrappers.append(watch)

    def dying_commit(self: Any) -> Any:
        nonlocal commits
        commits += id(self) in matched
        now = id(self) in matched and commits == nth
        matched.discard(id(self))
        if not now or at == "after":
            commit(self)
        if now:
            os.kill(os.getpid(), signal.SIGKILL)

    def forgetting_rollback(self: Any) -> Any:
        matched.discard(id(self))
        return rollback(self)

    connection_created.connect(listen, weak=False)
    BaseDatabaseWrapper._commit = dying_commit  # type: ignore[method-assign]
    BaseDatabaseWrapper._rollback = forgetting_rollback  # type: ignore[method-assign]


def emit_orders(count: int, requester: str) -> None:
    with transaction.atomic():
        for i in range(count):
            emit("order.paid", {"order": i}, requester=requester)


def main(*arguments: str) -> None:
    faults = json.loads(os.environ.get("WEBHOOKS_TEST_FAULTS", "{}"))
    set_constants(faults.get("constants", {}))
    if folder := faults.get("leases"):
        leases.record(folder)
    if die := faults.get("die"):
        die_at(**die)
    if arguments[0] == "emit":
        emit_orders(int(arguments[1]), arguments[2])
    else:
        call_command(*arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
