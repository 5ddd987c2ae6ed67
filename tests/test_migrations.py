"""Migrations: they say what the models say, and lead from nothing to all and back."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader

from webhooks import emit, lifecycle
from webhooks.models import Event, Subscription


def tables() -> set[str]:
    names = connection.introspection.table_names()
    return {name for name in names if name.startswith("webhooks_")}


def migrate(*arguments: str) -> None:
    call_command("migrate", *arguments, verbosity=0, interactive=False)


@pytest.fixture
def migrated_after(transactional_db: None) -> Iterator[None]:
    yield
    migrate()


@pytest.mark.django_db
def test_no_model_has_a_change_without_a_migration() -> None:
    out = StringIO()
    try:
        call_command("makemigrations", "--check", "--dry-run", stdout=out)
    except SystemExit:
        pytest.fail(out.getvalue())


def test_the_migrations_have_one_end() -> None:
    loader = MigrationLoader(None)
    assert len(loader.graph.leaf_nodes("webhooks")) == 1


@pytest.mark.usefixtures("migrated_after")
def test_from_all_to_nothing_and_back() -> None:
    before = tables()
    assert len(before) >= 10
    migrate("webhooks", "zero")
    assert tables() == set()
    migrate("webhooks")
    assert tables() == before
    executor = MigrationExecutor(connection)
    assert executor.migration_plan(executor.loader.graph.leaf_nodes()) == []


@pytest.mark.usefixtures("migrated_after")
def test_what_was_migrated_from_nothing_works() -> None:
    migrate("webhooks", "zero")
    migrate("webhooks")
    lifecycle.subscribe(requester="app:shop", callback_url="http://127.0.0.1:9/", event_types=["*"])
    emit("order.paid", {}, requester="app:shop", idempotency_key="k")
    emit("order.paid", {}, requester="app:shop", idempotency_key="k")
    assert (Subscription.objects.count(), Event.objects.count()) == (1, 1)


@pytest.mark.usefixtures("migrated_after")
def test_rows_do_not_stand_in_the_way_back() -> None:
    lifecycle.subscribe(requester="app:shop", callback_url="http://127.0.0.1:9/", event_types=["*"])
    emit("order.paid", {}, requester="app:shop")
    migrate("webhooks", "zero")
    assert tables() == set()


@pytest.mark.postgres
@pytest.mark.django_db
def test_hot_tables_keep_room_on_their_pages() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT reloptions FROM pg_class WHERE relname = 'webhooks_lane'")
        [options] = cursor.fetchone()
    assert options == ["fillfactor=70"]


@pytest.mark.django_db
def test_the_permission_to_see_payloads_is_made() -> None:
    from django.contrib.auth.models import Permission

    assert Permission.objects.filter(codename="view_payload").exists()
