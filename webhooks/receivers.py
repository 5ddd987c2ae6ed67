"""What listens to Django's and our own signals."""

from __future__ import annotations

from typing import Any

from webhooks.emission import record
from webhooks.models import Event


def record_event(sender: Any, *, type: str, data: Any, signal: Any = None, **options: Any) -> Event:
    """Record what ``webhook_event`` asks for, in the sender's transaction."""
    return record(type, data, **options)


def keep_no_results(sender: Any, task: dict[str, Any], **kwargs: Any) -> None:
    """Set our tasks' options as django-q2 enqueues them, whoever does.

    A failed task would be handed out again for ever, and a saved result costs more than the task.
    ``async_task`` has no argument for ``save``; its package has the key.
    """
    from webhooks.engine.wake import TASKS, task_timeout

    if task["func"] in TASKS:
        task["ack_failure"] = True
        task["save"] = False
        task["timeout"] = task_timeout()
