"""Statements that write many rows at once, in each database's cheapest way.

Measured on PostgreSQL 15 with psycopg 3, 12 columns, µs a row: ``bulk_create`` 108, COPY 21 (with
4 KB texts 350 and more, and 50: ``bulk_create`` quotes them in Python); on SQLite ``executemany``
21, ``bulk_create`` 64. ``bulk_update`` costs 315 where one UPDATE from arrays costs 10.

The caller holds the transaction, and knows the columns; nothing here decides anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from django.db import connections, models

from webhooks.models.fields import PrefixedIdField

Row = Sequence[Any]


def insert_rows(
    using: str,
    model: type[models.Model],
    columns: Sequence[str],
    rows: Sequence[Row],
    *,
    ignore_conflicts: bool = False,
    copy: bool = False,
) -> None:
    """Insert rows; with ``ignore_conflicts``, those that exist already are left as they are.

    copy: PostgreSQL may use COPY, which is fastest and which the host's query log does not show.
    """
    if not rows:
        return
    connection = connections[using]
    quote = connection.ops.quote_name
    fields = [_field(model, name) for name in columns]
    table = quote(model._meta.db_table)
    names = ", ".join(quote(field.column) for field in fields)
    adapted = _adapt(connection, fields, rows)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            if copy and hasattr(cursor.cursor, "copy"):  # psycopg 3
                # Django wraps the errors of execute() alone; as they are, nobody would catch these.
                sql = f"COPY {table} ({names}) FROM STDIN"
                with connection.wrap_database_errors, cursor.copy(sql) as stream:
                    for row in adapted:
                        stream.write_row(row)
                return
            arrays, params = _arrays(connection, fields, adapted)
            cursor.execute(
                f"INSERT INTO {table} ({names}) SELECT * FROM unnest({arrays})"  # noqa: S608
                + (" ON CONFLICT DO NOTHING" if ignore_conflicts else ""),
                params,
            )
            return
        mysql = connection.vendor == "mysql"
        verb = "INSERT IGNORE INTO" if ignore_conflicts and mysql else "INSERT INTO"
        tail = " ON CONFLICT DO NOTHING" if ignore_conflicts and not mysql else ""
        marks = ", ".join(["%s"] * len(fields))
        cursor.executemany(f"{verb} {table} ({names}) VALUES ({marks}){tail}", adapted)


def update_rows(
    using: str,
    model: type[models.Model],
    columns: Sequence[str],
    rows: Sequence[Row],
    *,
    only: str = "",
) -> None:
    """Set ``columns`` of the rows whose primary key is each row's first value.

    only: a further SQL condition on the updated table, written by us, e.g. ``state = 'pending'``.
    """
    if not rows:
        return
    connection = connections[using]
    quote = connection.ops.quote_name
    pk: Any = model._meta.pk
    fields = [pk, *(_field(model, name) for name in columns)]
    table = quote(model._meta.db_table)
    adapted = _adapt(connection, fields, rows)
    condition = f" AND {table}.{only}" if only else ""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            arrays, params = _arrays(connection, fields, adapted)
            new = [f"new{i}" for i in range(len(fields))]
            sets = ", ".join(
                f"{quote(f.column)} = v.{n}" for f, n in zip(fields[1:], new[1:], strict=True)
            )
            cursor.execute(
                f"UPDATE {table} SET {sets} FROM unnest({arrays}) AS v({', '.join(new)}) "  # noqa: S608
                f"WHERE {table}.{quote(pk.column)} = v.new0{condition}",
                params,
            )
            return
        sets = ", ".join(f"{quote(field.column)} = %s" for field in fields[1:])
        cursor.executemany(
            f"UPDATE {table} SET {sets} WHERE {quote(pk.column)} = %s{condition}",  # noqa: S608
            [(*row[1:], row[0]) for row in adapted],
        )


def add_rows(
    using: str,
    model: type[models.Model],
    keys: Sequence[str],
    counters: Sequence[str],
    rows: Sequence[Row],
) -> None:
    """Insert rows of ``keys`` + ``counters``; where a row of these keys exists, add to it."""
    if not rows:
        return
    connection = connections[using]
    quote = connection.ops.quote_name
    fields = [_field(model, name) for name in (*keys, *counters)]
    table = quote(model._meta.db_table)
    names = ", ".join(quote(field.column) for field in fields)
    added = [quote(_field(model, name).column) for name in counters]
    if connection.vendor == "mysql":
        sets = ", ".join(f"{name} = {name} + VALUES({name})" for name in added)
        tail = f"ON DUPLICATE KEY UPDATE {sets}"
    else:
        on = ", ".join(quote(_field(model, name).column) for name in keys)
        sets = ", ".join(f"{name} = {table}.{name} + EXCLUDED.{name}" for name in added)
        tail = f"ON CONFLICT ({on}) DO UPDATE SET {sets}"
    adapted = _adapt(connection, fields, rows)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            arrays, params = _arrays(connection, fields, adapted)
            cursor.execute(
                f"INSERT INTO {table} ({names}) SELECT * FROM unnest({arrays}) {tail}",  # noqa: S608
                params,
            )
            return
        marks = ", ".join(["%s"] * len(fields))
        sql = f"INSERT INTO {table} ({names}) VALUES ({marks}) {tail}"  # noqa: S608
        cursor.executemany(sql, adapted)


def _field(model: type[models.Model], name: str) -> Any:
    return model._meta.get_field(name)


def _adapt(connection: Any, fields: Sequence[Any], rows: Iterable[Row]) -> list[list[Any]]:
    converters = [_converter(connection, field) for field in fields]
    return [
        [
            value if convert is None or value is None else convert(value)
            for convert, value in zip(converters, row, strict=True)
        ]
        for row in rows
    ]


def _converter(connection: Any, field: Any) -> Callable[[Any], Any] | None:
    """How one column's values go to the driver; None: as they are."""
    target = field.target_field if isinstance(field, models.ForeignKey) else field
    if isinstance(target, PrefixedIdField):
        return _hex_of  # every database reads 32 hex digits as a UUID, or keeps them as text
    if isinstance(target, models.UUIDField):
        return str if connection.vendor == "postgresql" else None
    if isinstance(target, models.DateTimeField) and connection.vendor != "postgresql":
        adapt: Callable[[datetime], Any] = connection.ops.adapt_datetimefield_value
        return adapt
    return None


def _hex_of(value: str) -> str:
    return value[-32:]


def _arrays(
    connection: Any, fields: Sequence[Any], rows: Sequence[Row]
) -> tuple[str, list[list[Any]]]:
    """The arguments of ``unnest``: an array for each column, cast to the column's type."""
    casts = []
    for field in fields:
        kind = field.db_type(connection)
        casts.append(f"%s::{kind.split('(')[0]}[]")
    return ", ".join(casts), [list(column) for column in zip(*rows, strict=True)]
