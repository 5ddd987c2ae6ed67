"""What the demo runs beside its subscribers: the database, the cluster, the web server."""

from __future__ import annotations

import io
import os
import secrets
import socket
from contextlib import suppress
from typing import Final

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connection
from django_q.models import Task
from django_q.tasks import async_task
from oauth2_provider.models import get_application_model

from example_project.campaigns.models import Campaign
from example_project.demo.processes import Child, Children
from example_project.demo.stopping import StopSignal

LOGIN = PASSWORD = "admin"  # noqa: S105 (of the demo alone, and printed)

#: The API client that the demo's subscribers are, and that its campaigns address.
CLIENT_ID: Final = "demo"


class NotReady(Exception):
    """A service did not answer in time."""


def use_database(path: str) -> None:
    """Work on this SQLite file. Call before the first query; children get it by environment."""
    connection.close()
    settings.DATABASES["default"]["NAME"] = connection.settings_dict["NAME"] = path
    os.environ["EXAMPLE_DATABASE"] = path


def prepare_database() -> None:
    """Make the tables, and have the webhooks' and the product's own tasks scheduled."""
    call_command("migrate", verbosity=0, interactive=False)
    for name in ("webhooks_schedules", "campaign_schedules"):
        call_command(name, verbosity=0, stdout=io.StringIO())


def staff_user() -> None:
    """Make the demo's administrator, unless there is one of that name."""
    users = get_user_model().objects
    if not users.filter(username=LOGIN).exists():
        users.create_superuser(LOGIN, "", PASSWORD)


def api_client() -> str:
    """Make the demo's OAuth 2 application, unless there is one; returns its new secret.

    The secret is another one for each run: only its digest is stored, so the last one is lost.
    """
    model = get_application_model()
    application, _ = model.objects.get_or_create(
        client_id=CLIENT_ID,
        defaults={
            "name": "Demo",
            "client_type": model.CLIENT_CONFIDENTIAL,
            "authorization_grant_type": model.GRANT_CLIENT_CREDENTIALS,
        },
    )
    application.client_secret = secret = secrets.token_urlsafe(24)
    application.save(update_fields=["client_secret"])
    return secret


def start_cluster(children: Children) -> Child:
    """Start the django-q2 cluster that runs the webhooks' tasks."""
    return children.start(
        "cluster",
        ["manage.py", "qcluster"],
        environment={"Q_CLUSTER_NAME": settings.WEBHOOKS["CLUSTER"], **_settings_module()},
    )


def start_product_cluster(children: Children) -> Child:
    """Start the django-q2 cluster that runs the product's tasks, such as simulations."""
    return children.start(
        "product-cluster", ["manage.py", "qcluster"], environment=_settings_module()
    )


def draft_campaign() -> None:
    """Have a campaign that waits for being sent to simulated devices."""
    drafts = Campaign.objects.filter(state=Campaign.State.DRAFT)
    if not drafts.exists():
        Campaign.objects.create(
            name="Autumn sale", requester=f"app:{CLIENT_ID}", message="Everything must go."
        )


def start_web(children: Children, port: int) -> Child:
    """Start the web server. Insecure: static files without DEBUG, fit for this machine only."""
    return children.start(
        "web-server",
        ["manage.py", "runserver", "--noreload", "--insecure", f"127.0.0.1:{port}"],
        environment=_settings_module(),
    )


def retries() -> str:
    """A sentence about the retry schedule, which is not the one of a real service."""
    waits = ", ".join(str(wait) for wait in settings.WEBHOOKS["RETRY_SCHEDULE"])
    return f"Failed deliveries are retried after {waits} s: a short schedule, for the demo."


def free_port(wanted: int) -> int:
    """``wanted``, or the next port that nobody listens on; 0: any."""
    for port in range(wanted, wanted + 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)) as listener:
            return int(listener.getsockname()[1])
    raise OSError(f"No port from {wanted} to {wanted + 99} is free. Choose another with --port.")


def origin(port: int) -> str:
    """Where the web server is, for those who call it."""
    return f"http://127.0.0.1:{port}"


def curl(origin: str, secret: str) -> list[str]:
    """Two lines for a shell: get a token as the demo's client, and list the event types."""
    pick = "import json, sys; print(json.load(sys.stdin)['access_token'])"
    return [
        f"TOKEN=$(curl -s -u {CLIENT_ID}:{secret} -d grant_type=client_credentials "
        f'{origin}/o/token/ | python3 -c "{pick}")',
        f'curl -H "Authorization: Bearer $TOKEN" {origin}/webhooks/event-types/',
    ]


def pong() -> str:
    """The task by which the cluster shows that it works."""
    return "pong"


def await_cluster(children: Children, stop: StopSignal, *, seconds: float = 30) -> None:
    """Return when the cluster has run a task. Raises NotReady, ChildDied, Stopped."""
    cluster = settings.WEBHOOKS["CLUSTER"]
    task = async_task("example_project.demo.services.pong", cluster=cluster, save=True)
    for _ in range(int(seconds * 10)):
        if Task.objects.filter(id=task).exists():
            return
        children.check()
        stop.pause(0.1)
    raise NotReady(f"The cluster {cluster!r} ran no task within {seconds:.0f} s.")


def await_web(children: Children, stop: StopSignal, port: int, *, seconds: float = 30) -> None:
    """Return when the web server listens. Raises NotReady, ChildDied, Stopped."""
    for _ in range(int(seconds * 10)):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        children.check()
        stop.pause(0.1)
    raise NotReady(f"The web server did not listen within {seconds:.0f} s.")


def _settings_module() -> dict[str, str]:
    return {"DJANGO_SETTINGS_MODULE": settings.SETTINGS_MODULE}
