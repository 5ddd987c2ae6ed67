"""What the demo runs beside its subscribers: the database, the cluster, the web server."""

from __future__ import annotations

import io
import os
import socket
from contextlib import suppress

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connection
from django_q.models import Task
from django_q.tasks import async_task

from example_project.demo.processes import Child, Children
from example_project.demo.stopping import StopSignal

LOGIN = PASSWORD = "admin"  # noqa: S105 (of the demo alone, and printed)


class NotReady(Exception):
    """A service did not answer in time."""


def use_database(path: str) -> None:
    """Work on this SQLite file. Call before the first query; children get it by environment."""
    connection.close()
    settings.DATABASES["default"]["NAME"] = connection.settings_dict["NAME"] = path
    os.environ["EXAMPLE_DATABASE"] = path


def prepare_database() -> None:
    """Make the tables, and have the sweep and the pruning scheduled."""
    call_command("migrate", verbosity=0, interactive=False)
    call_command("webhooks_schedules", verbosity=0, stdout=io.StringIO())


def staff_user() -> None:
    """Make the demo's administrator, unless there is one of that name."""
    users = get_user_model().objects
    if not users.filter(username=LOGIN).exists():
        users.create_superuser(LOGIN, "", PASSWORD)


def start_cluster(children: Children) -> Child:
    """Start the django-q2 cluster that runs the webhooks' tasks."""
    return children.start(
        "cluster",
        ["manage.py", "qcluster"],
        environment={"Q_CLUSTER_NAME": settings.WEBHOOKS["CLUSTER"], **_settings_module()},
    )


def start_web(children: Children, port: int) -> Child:
    """Start the web server. Insecure: static files without DEBUG, fit for this machine only."""
    return children.start(
        "web",
        ["manage.py", "runserver", "--noreload", "--insecure", f"127.0.0.1:{port}"],
        environment=_settings_module(),
    )


def retries() -> str:
    """A sentence about the retry schedule, which is not the one of a real service."""
    waits = ", ".join(str(wait) for wait in settings.WEBHOOKS["RETRY_SCHEDULE"])
    return f"Failed deliveries are retried after {waits} s: a short schedule, for the demo."


def free_port(wanted: int) -> int:
    """``wanted``, or the next port that nobody listens on."""
    for port in range(wanted, wanted + 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise OSError(f"No port from {wanted} to {wanted + 99} is free. Choose another with --port.")


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
