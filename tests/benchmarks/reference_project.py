"""A project of the references' own: settings, Celery's application, and what fills its queues.

It runs with the Python of their environment, which has no ``webhooks``: nothing is imported here
that is not installed there.

    python -m tests.benchmarks.reference_project prepare|remove|celery URL COUNT|q2 URL COUNT
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

PLACE = os.environ["REFERENCE_PLACE"]
QUEUE = os.environ["REFERENCE_QUEUE"]
REDIS = {
    "host": os.environ.get("REDIS_HOST", "127.0.0.1"),
    "port": int(os.environ.get("REDIS_PORT", "6379")),
    "db": int(os.environ.get("REDIS_DB", "9")),
}
POSTGRES = os.environ["REFERENCE_DATABASE"] == "postgres"
NAME = f"webhooks_{QUEUE.replace('-', '_')}_reference"

# Django's settings
SECRET_KEY = "reference"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django_q",
    "django_webhook",
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ.get("PGHOST", "127.0.0.1"),
        "PORT": os.environ.get("PGPORT", "5432"),
        "USER": os.environ.get("PGUSER", "postgres"),
        "PASSWORD": os.environ.get("PGPASSWORD", ""),
        "NAME": NAME,
    }
    if POSTGRES
    else {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": f"{PLACE}/reference.sqlite3",
        "OPTIONS": {"timeout": 20, "init_command": "PRAGMA journal_mode=WAL;"},
    }
}
DJANGO_WEBHOOK = {"MODELS": ["auth.User"]}
Q_CLUSTER: dict[str, Any] = {"name": QUEUE, "workers": 1, "timeout": 60, "retry": 90}
if os.environ["REFERENCE_BROKER"] == "redis":
    Q_CLUSTER["redis"] = REDIS
else:
    Q_CLUSTER["orm"] = "default"

DATA = {"text": "Spring has come. " * 50}


def celery_application() -> Any:
    import django
    from celery import Celery

    # Before Django imports django-webhook, whose tasks belong to whatever application is there.
    made = Celery("reference", broker="redis://{host}:{port}/{db}".format(**REDIS))
    made.conf.task_default_queue = QUEUE  # the one thing that is not the default: nobody else's
    made.conf.broker_connection_retry_on_startup = True
    made.set_default()
    django.setup()
    made.autodiscover_tasks(["django_webhook"])
    return made


# Celery looks for it here, as its worker is started with ``-A``.
if "celery" in sys.argv[0]:
    app = celery_application()


def prepare() -> None:
    """Make the database."""
    import django

    if POSTGRES:
        _on_the_server(f'CREATE DATABASE "{NAME}"')
    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


def remove() -> None:
    """Remove the database, and what may be left in the queues."""
    import redis

    if POSTGRES:
        _on_the_server(f'DROP DATABASE IF EXISTS "{NAME}" WITH (FORCE)')
    server = redis.Redis(**REDIS)
    for key in server.scan_iter(f"*{QUEUE}*"):
        server.delete(key)


def _on_the_server(statement: str) -> None:
    import psycopg

    settings = DATABASES["default"]
    with psycopg.connect(
        host=settings["HOST"],
        port=settings["PORT"],
        user=settings["USER"],
        password=settings["PASSWORD"],
        dbname="postgres",
        autocommit=True,
    ) as connection:
        connection.execute(statement)


def celery(url: str, count: int) -> None:
    """Queue so many webhooks, as saving a model does."""
    celery_application()
    from django_webhook.models import Webhook, WebhookSecret
    from django_webhook.tasks import fire_webhook

    webhook = Webhook.objects.create(url=url)
    WebhookSecret.objects.create(webhook=webhook, token="s" * 32)
    payload = json.dumps(
        {"topic": "auth.User/update", "object": DATA, "webhook_uuid": str(webhook.uuid)}
    )
    for _ in range(count):
        fire_webhook.delay(webhook.id, payload, topic="auth.User/update", object_type="auth.User")


def q2(url: str, count: int) -> None:
    """Queue so many tasks that call ``requests.post``."""
    import django

    django.setup()
    from django_q.tasks import async_task

    for number in range(count):
        async_task(
            "requests.post",
            url,
            data=json.dumps({"id": number, "data": DATA}),
            headers={"content-type": "application/json"},
            timeout=15,
        )


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    if what in ("celery", "q2"):
        {"celery": celery, "q2": q2}[what](rest[0], int(rest[1]))
    else:
        {"prepare": prepare, "remove": remove}[what]()
