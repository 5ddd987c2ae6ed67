"""The django-q2 cluster that runs our tasks, as its configuration describes it.

django-q2 reads ``Q_CLUSTER`` once, as it is imported, and each process reads its own part of it;
so what the worker will find is worked out here from the settings, and judged. ``webhooks.checks``
asks.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

from django.core.checks import CheckMessage, Error, Warning

Conf = Mapping[Any, Any]


def judge(
    main: Any, name: str | None, *, drain_seconds: float, post_seconds: float
) -> Iterator[CheckMessage]:
    """What is wrong with the cluster ``name`` (None: the default one) of ``Q_CLUSTER``.

    drain_seconds: the length of a drain. post_seconds: the longest that one POST may take.
    """
    if not isinstance(main, Mapping):
        yield Error(
            f"The setting Q_CLUSTER is of type {type(main).__name__}, not a dict: django-q2 cannot "
            "start, and nothing is delivered.",
            hint="Make it a dict; see the chapter on configuration of django-q2's documentation.",
            id="webhooks.E040",
        )
        return
    known = queues(main)
    if name is not None and name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        yield Error(
            f"WEBHOOKS['CLUSTER'] is {name!r}, but Q_CLUSTER names no such cluster, only "
            f"{', '.join(map(repr, known))}: wake-ups would go to a queue that nobody reads.",
            hint=f"Did you mean {near[0]!r}?" if near else "Add it to Q_CLUSTER['ALT_CLUSTERS'].",
            id="webhooks.E041",
        )
        return
    conf = merged(main, name)
    where = "Q_CLUSTER" if name in (None, known[0]) else f"Q_CLUSTER['ALT_CLUSTERS'][{name!r}]"
    yield from _times(where, conf, drain_seconds, post_seconds)
    yield from _handling(where, conf)
    if broker(conf) != broker(main):
        yield Error(
            f"{where} names another broker ({broker(conf)[0]}) than the default cluster "
            f"({broker(main)[0]}). A web process has the default cluster's broker only: its "
            "wake-ups would go to a queue that nobody reads.",
            hint="Name the broker once, at the top of Q_CLUSTER; clusters differ by their queues.",
            id="webhooks.E046",
        )


def queues(main: Conf) -> list[str]:
    """The queues that clusters of this configuration read; the default cluster's comes first."""
    others = main.get("ALT_CLUSTERS")
    default = main.get("cluster_name", main.get("name", "default"))
    return [str(default), *(map(str, others) if isinstance(others, Mapping) else ())]


def merged(main: Conf, name: str | None) -> Conf:
    """What ``django_q.conf.Conf`` finds in a process of the cluster of this name."""
    if name is None or name in (main.get("name"), main.get("cluster_name")):
        return main
    others = main.get("ALT_CLUSTERS")
    own = others.get(name) if isinstance(others, Mapping) else None
    if not isinstance(own, Mapping):
        return main
    return {**main, **{k: v for k, v in own.items() if k not in ("name", "cluster_name")}}


def broker(conf: Conf) -> tuple[str, Any]:
    """The broker that ``django_q.brokers.get_broker`` picks, and what it is given."""
    for kind in ("broker_class", "iron_mq"):
        if conf.get(kind):
            return kind, conf[kind]
    if isinstance(conf.get("sqs"), dict):
        return "sqs", conf["sqs"]
    for kind in ("orm", "mongo"):
        if conf.get(kind):
            return kind, conf[kind]
    return "redis", (conf.get("redis", {}), conf.get("django_redis"))


def _times(
    where: str, conf: Conf, drain_seconds: float, post_seconds: float
) -> Iterator[CheckMessage]:
    timeout, retry = conf.get("timeout"), conf.get("retry", 60)
    # A task of ours carries a timeout of its own, whatever the cluster's is. That it may be above
    # 'retry' is no error: a second drain of the same moment is one look at the database more.
    own = int(drain_seconds + 2 * post_seconds + 20)
    if not _is_number(timeout) or timeout <= 0:
        yield Error(
            f"{where} has no 'timeout' (it is {timeout!r}): django-q2 would wait for ever for a "
            f"task that hangs, and hand it to a second worker after 'retry' ({retry!r}) seconds.",
            hint=f"Set 'timeout' to {own} or more, and 'retry' above it.",
            id="webhooks.E042",
        )
    if not _is_number(retry) or (_is_number(timeout) and retry <= timeout):
        yield Error(
            f"{where} has 'retry' {retry!r}, not above its 'timeout' {timeout!r}: django-q2 would "
            "run a task again while it still runs.",
            hint=f"Set 'retry' above 'timeout', best above {own}.",
            id="webhooks.E043",
        )
    needed = drain_seconds + post_seconds
    if _is_number(timeout) and 0 < timeout <= needed:
        yield Error(
            f"{where} has 'timeout' {timeout!r}, but a drain may take DRAIN_SECONDS + TIMEOUT = "
            f"{needed:g} seconds: django-q2 would kill it, with its POSTs in flight.",
            hint=f"Set 'timeout' to {own} or more, or WEBHOOKS['DRAIN_SECONDS'] lower.",
            id="webhooks.E044",
        )


def _handling(where: str, conf: Conf) -> Iterator[CheckMessage]:
    if conf.get("ack_failures", False) is not True:
        yield Error(
            f"{where} does not have 'ack_failures': a task that fails or is killed is handed out "
            "again, for ever.",
            hint="Set 'ack_failures' to True.",
            id="webhooks.E045",
        )
    workers = conf.get("workers") or os.cpu_count() or 4
    if _is_number(workers):
        limit = conf.get("queue_limit", int(workers) ** 2)
        if _is_number(limit) and limit > workers:
            yield Warning(
                f"{where} has 'queue_limit' {limit} for {workers} workers: a cluster that is told "
                "to stop first runs all that it has fetched, so stopping takes long.",
                hint=f"Set 'queue_limit' to {workers}; it is workers ** 2 unless you say so.",
                id="webhooks.W003",
            )
    if conf.get("sync"):
        yield Warning(
            f"{where} has 'sync': each wake-up delivers there and then, and the request that "
            "emitted an event waits for its subscribers.",
            hint="Remove 'sync'; in tests, set WEBHOOKS['WAKER'] to None and call the task.",
            id="webhooks.W004",
        )
    if not conf.get("scheduler", True):
        yield Warning(
            f"{where} has its scheduler turned off: nothing sweeps, so events whose wake-up was "
            "lost stay where they are.",
            hint="Remove 'scheduler', or run manage.py webhooks_worker beside the cluster.",
            id="webhooks.W005",
        )


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
