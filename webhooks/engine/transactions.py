"""Transactions of the engine: begun as writers, and run again where the database asks for it."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from django.db import (
    DatabaseError,
    InterfaceError,
    OperationalError,
    connections,
    transaction,
)

logger = logging.getLogger("webhooks")

T = TypeVar("T")

#: What a database may raise; Django's InterfaceError is no DatabaseError.
DATABASE_ERRORS = (DatabaseError, InterfaceError)


def atomically(using: str, work: Callable[[], T], *, patience: float = 20.0) -> T:
    """Run ``work`` in a transaction and return its result.

    A deadlock, a serialization failure, a locked or restarting database: the work is run again,
    for up to ``patience`` seconds; so it must be free of other effects. What still fails is raised.
    """
    deadline = time.monotonic() + patience
    wait = 0.02
    while True:
        try:
            with _writing(using):
                return work()
        except (OperationalError, InterfaceError) as error:
            connection = connections[using]
            if connection.in_atomic_block or time.monotonic() > deadline:
                raise
            logger.warning("The database asks to try again: %.200r", str(error))
            connection.close_if_unusable_or_obsolete()
            time.sleep(wait * random.uniform(0.5, 1.5))  # noqa: S311
            wait = min(wait * 2, 1.0)


@contextmanager
def _writing(using: str) -> Iterator[None]:
    connection: Any = connections[using]
    if connection.vendor != "sqlite" or connection.in_atomic_block:
        with transaction.atomic(using=using):
            yield
        return
    # SQLite refuses at once, without waiting, a transaction that read first and wants to write
    # after somebody else did. Begun as a writer it waits for its turn instead.
    connection.ensure_connection()
    mode = connection.transaction_mode
    connection.transaction_mode = "IMMEDIATE"
    try:
        with transaction.atomic(using=using):
            yield
    finally:
        connection.transaction_mode = mode
