"""Every misconfiguration has a check with a stable id, and each check has its test here."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, registry, run_checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.postgresql.psycopg_any import IsolationLevel
from django.test import modify_settings

from webhooks import checks, cluster
from webhooks.checks.rules import RULES
from webhooks.conf import DEFAULTS
from webhooks.engine.wake import task_timeout

#: Always the same one, for it stands in the names of tests.
KEY = "q3qDp7cVbK0uXv2mJt5sYh8nLw1zRe4gTf6aCi9oBkM="

#: A cluster of which nothing can be said.
GOOD = {
    "name": "main",
    "orm": "default",
    "workers": 2,
    "queue_limit": 2,
    "timeout": 90,
    "retry": 120,
    "ack_failures": True,
}


def found(*, deploy: bool = False) -> dict[str, list[CheckMessage]]:
    """The messages of our checks by id, without the prefix."""
    by_id: dict[str, list[CheckMessage]] = {}
    for message in run_checks(tags=["webhooks"], include_deployment_checks=deploy):
        assert message.id is not None
        by_id.setdefault(message.id.removeprefix("webhooks."), []).append(message)
    return by_id


def text_of(id_: str) -> str:
    [message] = found()[id_]
    return f"{message.msg} {message.hint}"


@pytest.fixture
def webhooks(settings: Any) -> Callable[..., None]:
    """Sets WEBHOOKS to something sound, with these keys changed."""

    def configure(**keys: Any) -> None:
        settings.WEBHOOKS = {"ENCRYPTION_KEYS": [KEY], **keys}

    settings.Q_CLUSTER = dict(GOOD)
    configure()
    return configure


@pytest.fixture
def q_cluster(settings: Any, webhooks: Any) -> Callable[..., None]:
    """Sets Q_CLUSTER to something sound, with these keys changed; None takes a key away."""

    def configure(**keys: Any) -> None:
        merged = {**GOOD, **keys}
        settings.Q_CLUSTER = {key: value for key, value in merged.items() if value is not None}

    return configure


@pytest.fixture
def deployed(settings: Any, webhooks: Any) -> Callable[..., None]:
    """Sets what ``check --deploy`` has nothing to say about, with these keys changed."""

    def configure(**keys: Any) -> None:
        webhooks(**{"CLUSTER": "webhooks", **keys})

    settings.Q_CLUSTER = {**GOOD, "ALT_CLUSTERS": {"webhooks": {}}}
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.db.DatabaseCache"}}
    settings.ALLOWED_HOSTS = []
    configure()
    return configure


@pytest.fixture
def outbox(monkeypatch: pytest.MonkeyPatch, webhooks: Any) -> Callable[..., None]:
    """Makes the outbox's database look like one of ``vendor`` with these OPTIONS."""

    def configure(vendor: str, options: Any) -> None:
        monkeypatch.setattr(connections["default"], "vendor", vendor)
        monkeypatch.setitem(connections.settings["default"], "OPTIONS", options)

    return configure


def test_a_sound_configuration_has_nothing_to_say(outbox: Any, deployed: Any) -> None:
    outbox("postgresql", {})
    assert found(deploy=True) == {}


def test_the_settings_of_the_test_project_are_sound(settings: Any) -> None:
    assert found() == {}


def test_the_checks_run_with_manage_py_check() -> None:
    registered = registry.registry.get_checks(include_deployment_checks=True)
    ours = [check for check in registered if check.__module__.startswith("webhooks.checks.")]
    assert {check.__name__ for check in ours} == set(checks.__all__)
    late = [check for check in ours if check not in registry.registry.get_checks()]
    assert {check.__module__ for check in late} == {"webhooks.checks.deploy"}
    assert len(late) == 3


# The settings as a whole


@pytest.mark.parametrize("value", [None, [], [1], "text", 7, object()])
def test_e001_webhooks_is_no_dict(settings: Any, webhooks: Any, value: Any) -> None:
    settings.WEBHOOKS = value
    assert "E001" in found(deploy=True)


def test_e001_needs_a_setting_that_is_there(settings: Any, webhooks: Any) -> None:
    del settings.WEBHOOKS
    assert "E001" not in found()
    assert "E003" in found()


def test_e002_an_unknown_key_is_named_with_the_nearest_one(webhooks: Any) -> None:
    webhooks(CONCURENCY=8)
    assert "'CONCURENCY'" in text_of("E002")
    assert "Did you mean 'CONCURRENCY'?" in text_of("E002")


@pytest.mark.parametrize("key", ["concurrency", 7, None, ("a",), "x" * 1000, ""])
def test_e002_refuses_any_key_that_nothing_reads(webhooks: Any, settings: Any, key: Any) -> None:
    settings.WEBHOOKS = {"ENCRYPTION_KEYS": [KEY], key: 1}
    assert list(found()) == ["E002"]


def test_e003_no_encryption_keys_outside_of_debug(webhooks: Any, settings: Any) -> None:
    webhooks(ENCRYPTION_KEYS=[])
    assert list(found()) == ["E003"]
    assert "Fernet.generate_key()" in text_of("E003")
    settings.DEBUG = True
    assert found() == {}


@pytest.mark.parametrize("bad", ["short", "", b"bytes", None, 7, KEY[:-1], KEY[:40], "é" * 44])
def test_e004_a_malformed_key_is_named_by_its_place_and_not_shown(webhooks: Any, bad: Any) -> None:
    webhooks(ENCRYPTION_KEYS=[KEY, bad])
    assert list(found()) == ["E004"]
    assert "ENCRYPTION_KEYS'][1]" in text_of("E004")
    assert KEY not in text_of("E004")
    assert not bad or str(bad) not in text_of("E004")


@pytest.mark.parametrize("value", [KEY, {KEY}, 7, None, {KEY: 1}])
def test_e004_keys_that_are_no_list(webhooks: Any, value: Any) -> None:
    webhooks(ENCRYPTION_KEYS=value)
    assert list(found()) == ["E004"]
    assert KEY not in text_of("E004")


@pytest.mark.parametrize(
    ("lease", "timeout", "sound"),
    [(45, 15, True), (44, 15, False), (60, 30, False), (16, 0.5, True)],
)
def test_e005_a_lease_outlives_two_posts(
    webhooks: Any, lease: float, timeout: float, sound: bool
) -> None:
    webhooks(LEASE_SECONDS=lease, TIMEOUT=timeout, DRAIN_SECONDS=1)
    assert ("E005" in found()) is not sound


@pytest.mark.parametrize("app", ["django_q", "oauth2_provider"])
def test_e007_an_app_that_is_missing(webhooks: Any, app: str, monkeypatch: Any) -> None:
    installed = apps.is_installed
    monkeypatch.setattr(apps, "is_installed", lambda name: name != app and installed(name))
    assert list(found()) == ["E007"]
    assert repr(app) in text_of("E007")


def test_e007_reads_the_installed_apps(webhooks: Any) -> None:
    with modify_settings(INSTALLED_APPS={"remove": ["oauth2_provider"]}):
        assert "oauth2_provider" in " ".join(m.msg for m in checks.check_apps())
    assert checks.check_apps() == []


@pytest.mark.parametrize(
    ("schedule", "age", "sound"), [([5, 55], 60, True), ([5, 56], 60, False), ([], 1, True)]
)
def test_w007_retries_that_never_come(webhooks: Any, schedule: Any, age: int, sound: bool) -> None:
    webhooks(RETRY_SCHEDULE=schedule, MAX_AGE=age)
    assert list(found()) == ([] if sound else ["W007"])


# One key each

WRONG: dict[str, list[Any]] = {
    "DATABASE": ["nowhere", 7, [], ""],
    "BASE_URL": ["example.com", "ftp://example.com", "/path", None, 7, "http://[", "https://"],
    "TRANSPORT": [
        *(
            "webhooks.transports.nowhere.Transport",
            "webhooks.checks.rules.RULES",
            "nodots",
            None,
            7,
        ),
        *("webhooks.transports.base.Transport", "webhooks.access.requester_of"),
    ],
    "CONCURRENCY": [0, -1, 1.5, "8", True],
    "FLUSH_MAX": [0, -1, 1.5, "8", None, True],
    "DRAIN_SECONDS": [0, -1, "10", None, True, float("nan"), float("inf"), 1e308],
    "WORKERS": [0, -1, 1.5, "8", None, True],
    "TIMEOUT": [0, -1, "15", None, True, float("nan"), float("inf"), 1e308],
    "LEASE_SECONDS": [0, -1, "60", None, True, float("nan"), float("inf"), 1e308],
    "RETRY_SCHEDULE": [5, "5", None, [0], [-1], ["5"], [True], [None], {5: 5}, [float("nan")]],
    "MAX_AGE": [0, -1, "60", None, True, float("nan")],
    "MAX_PAYLOAD_BYTES": [0, -1, 1.5, "8", None, True],
    "MAX_SUBSCRIPTIONS": [0, -1, 1.5, "8", None, True],
    "ALLOW_HTTP": ["yes", 1, None],
    "ALLOWED_PORTS": ["443", 443, None, [0], [65536], ["443"], [True], "ANY", {443: 1}, [], ()],
    "ALLOWED_NETWORKS": [
        "10.0.0.0/8",
        None,
        7,
        [7],
        ["10.0.0.0/33"],
        ["example.com"],
        [None],
        [[]],
        ["::ffff:10.0.0.0/104"],
    ],
    "DENIED_HOSTS": [
        *("example.com", None, 7, [7], [None], [""], ["."], ["*"], ["*.example.com"]),
        *(["https://example.com"], ["example.com/hooks"], ["example.com:443"], ["a b.example"]),
        *(["user@example.com"], ["münchen.example"], ["..example.com"], ["example..com"]),
        *(["127.1"], ["10.0.0.0/8"], [".10.0.0.1"], ["fe80::1%eth0"], ["example.com "]),
    ],
    "CLUSTER": [7, "", [], ["main"]],
    "WAKER": ["webhooks.engine.wake.nothing", "webhooks.checks.rules.RULES", 7, []],
    "RETENTION_DAYS": [0, -1, 1.5, "8", None, True],
    "REQUESTER": ["webhooks.access.nobody", "webhooks.access.READ", None, 7],
    "ENTITLEMENT": ["webhooks.access.nobody", "webhooks.access.READ", 7, []],
    "THROTTLES": [None, 7, [], {"pings": "3/min"}, {"ping": "3"}, {"ping": 3}, {"ping": "0/min"}],
    "SOURCE_IPS": ["10.0.0.0/8", ["nowhere"], [7], None],
    "EGRESS_PROXY": [
        *("", 7, [], "proxy", "proxy:3128", "http://proxy", "https://proxy:3128", "http://:3128"),
        *("socks5://proxy:1080", "http://proxy:0", "http://proxy:65536", "http://proxy:x"),
        *("http://proxy:3128/path", "http://proxy:3128?q", "http://proxy:3128#f", "http://[::1"),
        *("http://pro xy:3128", "http://proxy:3128\n"),
    ],
    "SUSPENDED_MAX_AGE": [0, -1, "60", None, True],
    "AUTO_SUSPEND_SECONDS": [0, -1, "60", True],
    "AUTO_SUSPEND_FAILURES": [0, -1, 1.5, "8", None, True],
    "PROBE_SECONDS": [0, -1, "60", True],
    "CLOUDEVENTS_SOURCE": [None, 7, "two words", "/café", "a\nb"],
    "FORMATS": [
        *(None, [], "x", {7: "x"}, {"": "x"}, {"x" * 33: "x"}),
        *({"standard": "webhooks.formats.standard.StandardFormat"}, {"own": "webhooks.nowhere.F"}),
        *({"own": None}, {"own": "webhooks.formats.base.Format"}, {"own": "webhooks.access.sees"}),
    ],
}


@pytest.mark.parametrize(("key", "value"), [(key, v) for key, vs in WRONG.items() for v in vs])
def test_a_value_that_its_key_cannot_have(webhooks: Any, key: str, value: Any) -> None:
    webhooks(**{key: value})
    id_ = RULES[key][0]
    assert list(found()) == [id_]
    assert id_ in found(deploy=True)
    assert f"WEBHOOKS[{key!r}]" in text_of(id_)
    assert "default" in text_of(id_)


RIGHT: dict[str, list[Any]] = {
    "DATABASE": [None, "default"],
    "BASE_URL": ["", "https://example.com", "http://localhost:8000/app"],
    "TRANSPORT": ["webhooks.transports.requests.RequestsTransport"],
    "CONCURRENCY": [None, 1, 512],
    "FLUSH_MAX": [1],
    "DRAIN_SECONDS": [1, 2.5],
    "WORKERS": [1],
    "TIMEOUT": [1, 0.5],
    "LEASE_SECONDS": [3600, 90.5],
    "RETRY_SCHEDULE": [[], (), [1, 2.5], (5, 300)],
    "MAX_AGE": [400_000, 300_000.5],
    "MAX_PAYLOAD_BYTES": [1],
    "MAX_SUBSCRIPTIONS": [1],
    "ALLOW_HTTP": [True, False],
    "ALLOWED_PORTS": ["any", (443,), [1, 65535]],
    "ALLOWED_NETWORKS": [[], (), ["10.0.0.0/8", "fd00::/8"], ["10.1.2.3"], ["10.1.2.3/8"]],
    "DENIED_HOSTS": [
        *([], ("api.example.com",), ["API.Example.com."], [".example.com"], ["hooks_x.example"]),
        *(["xn--mnchen-3ya.example"], ["localhost"], ["192.0.2.7", "2001:db8::7", "[2001:db8::7]"]),
    ],
    "CLUSTER": [None, "main"],
    "WAKER": [None, "webhooks.engine.wake.enqueue_drain"],
    "RETENTION_DAYS": [1],
    "REQUESTER": ["webhooks.access.requester_of"],
    "ENTITLEMENT": [None, "webhooks.access.granted"],
    "THROTTLES": [{}, {"ping": None}, {"create": "5/sec", "replay": "100/hour"}],
    "SOURCE_IPS": [(), ["192.0.2.0/24", "2001:db8::1"]],
    "EGRESS_PROXY": [
        *(None, "http://proxy:3128", "http://user:password@10.1.2.3:3128", "http://[::1]:3128/"),
    ],
    "SUSPENDED_MAX_AGE": [60, 0.5],
    "AUTO_SUSPEND_SECONDS": [None, 60],
    "AUTO_SUSPEND_FAILURES": [1],
    "PROBE_SECONDS": [None, 60],
    "CLOUDEVENTS_SOURCE": ["", "https://example.com/shop", "urn:example:shop", "/shop"],
    "FORMATS": [{}, {"own": "webhooks.formats.standard.StandardFormat"}],
}


@pytest.mark.parametrize(("key", "value"), [(key, v) for key, vs in RIGHT.items() for v in vs])
def test_a_value_that_its_key_can_have(webhooks: Any, key: str, value: Any) -> None:
    webhooks(**{key: value})
    assert found() == {}


def test_each_key_has_a_rule_and_each_rule_an_id_of_its_own() -> None:
    assert set(RULES) == set(DEFAULTS) - {"ENCRYPTION_KEYS"} == set(WRONG) == set(RIGHT)
    assert len({id_ for id_, _rule in RULES.values()}) == len(RULES)


def test_a_module_that_fails_as_it_is_imported_is_a_message(
    webhooks: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing_waker.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    webhooks(WAKER="failing_waker.wake")
    assert "division by zero" in text_of("E028")


@pytest.mark.parametrize(
    "url", ["https://user:hush@proxy:3128", "user:hush@proxy", "http://u:hush@proxy", ["hush"]]
)
def test_e035_does_not_show_the_proxys_password(webhooks: Any, url: Any) -> None:
    webhooks(EGRESS_PROXY=url)
    assert list(found()) == ["E035"]
    assert "hush" not in text_of("E035")
    assert "http://host:port" in text_of("E035")


def test_a_long_value_is_cut(webhooks: Any) -> None:
    webhooks(BASE_URL="x" * 10_000)
    assert len(text_of("E011")) < 400


# The outbox's database


@pytest.mark.parametrize(
    ("vendor", "options", "sound"),
    [
        ("postgresql", {}, True),
        ("postgresql", {"isolation_level": IsolationLevel.READ_COMMITTED}, True),
        ("postgresql", {"isolation_level": IsolationLevel.REPEATABLE_READ}, False),
        ("postgresql", {"isolation_level": IsolationLevel.SERIALIZABLE}, False),
        ("postgresql", {"isolation_level": "read committed"}, False),
        ("postgresql", {"isolation_level": None}, False),
        ("mysql", {}, True),
        ("mysql", {"isolation_level": "read committed"}, True),
        ("mysql", {"isolation_level": "READ COMMITTED"}, True),
        ("mysql", {"isolation_level": "repeatable read"}, False),
        ("mysql", {"isolation_level": None}, False),
        ("postgresql", None, True),
        ("mysql", [], True),
    ],
)
def test_e006_the_outbox_reads_what_is_committed(
    outbox: Any, vendor: str, options: Any, sound: bool
) -> None:
    outbox(vendor, options)
    assert list(found()) == ([] if sound else ["E006"])


WAL = "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        ({"transaction_mode": "IMMEDIATE", "init_command": WAL}, []),
        ({"transaction_mode": "immediate", "init_command": "pragma journal_mode = wal"}, []),
        ({"transaction_mode": "EXCLUSIVE", "init_command": WAL}, []),
        ({"init_command": WAL}, ["W001"]),
        ({"transaction_mode": None, "init_command": WAL}, ["W001"]),
        ({"transaction_mode": "DEFERRED", "init_command": WAL}, ["W001"]),
        ({"transaction_mode": "IMMEDIATE"}, ["W002"]),
        (
            {"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=DELETE"},
            ["W002"],
        ),
        ({}, ["W001", "W002"]),
        (None, ["W001", "W002"]),
        ("nonsense", ["W001", "W002"]),
    ],
)
def test_w001_and_w002_sqlite_waits_instead_of_failing(
    outbox: Any, options: Any, ids: list[str]
) -> None:
    outbox("sqlite", options)
    assert list(found()) == ids
    for id_ in ids:
        assert '"transaction_mode": "IMMEDIATE"' in text_of(id_)
        assert "journal_mode=WAL" in text_of(id_)


# The cluster


@pytest.mark.parametrize("value", [None, [], "text", 7])
def test_e040_q_cluster_is_no_dict(settings: Any, webhooks: Any, value: Any) -> None:
    settings.Q_CLUSTER = value
    assert list(found()) == ["E040"]


def test_e041_a_cluster_that_is_not_there(webhooks: Any, q_cluster: Any) -> None:
    q_cluster(ALT_CLUSTERS={"webhooks": {}})
    webhooks(CLUSTER="webhook")
    assert list(found()) == ["E041"]
    assert "Did you mean 'webhooks'?" in text_of("E041")


@pytest.mark.parametrize(
    ("keys", "name", "known"),
    [
        ({}, "main", True),
        ({"name": None}, "default", True),
        ({"ALT_CLUSTERS": {"other": {}}}, "other", True),
        ({"ALT_CLUSTERS": {"other": None}}, "other", True),
        ({"ALT_CLUSTERS": ["other"]}, "other", False),
        ({"ALT_CLUSTERS": None}, "other", False),
        # Its queue is called by its cluster_name; nobody reads one that is called "main".
        ({"cluster_name": "queue"}, "queue", True),
        ({"cluster_name": "queue"}, "main", False),
    ],
)
def test_e041_knows_the_clusters_as_django_q2_does(
    webhooks: Any, q_cluster: Any, keys: Any, name: str, known: bool
) -> None:
    q_cluster(**keys)
    webhooks(CLUSTER=name)
    assert ("E041" in found()) is not known


@pytest.mark.parametrize("timeout", [0, -5, "90", True, []])
def test_e042_a_cluster_without_timeout(q_cluster: Any, timeout: Any) -> None:
    q_cluster(timeout=timeout)
    assert list(found()) == ["E042"]


def test_e042_a_timeout_that_is_absent_or_none(q_cluster: Any, settings: Any) -> None:
    q_cluster(timeout=None)
    assert list(found()) == ["E042"]
    settings.Q_CLUSTER["timeout"] = None
    assert list(found()) == ["E042"]


@pytest.mark.parametrize(
    ("timeout", "retry", "sound"),
    [
        (90, 91, True),
        (90, 90, False),
        (90, 60, False),
        (90, None, False),  # 60 unless it is set
        (90, "120", False),
        (30, 60, True),
    ],
)
def test_e043_a_task_that_still_runs_is_not_run_again(
    q_cluster: Any, timeout: int, retry: Any, sound: bool
) -> None:
    q_cluster(timeout=timeout, retry=retry)
    assert list(found()) == ([] if sound else ["E043"])


def test_e043_names_the_timeout_that_the_tasks_really_carry(webhooks: Any, q_cluster: Any) -> None:
    webhooks(DRAIN_SECONDS=33, TIMEOUT=7)
    q_cluster(retry=50, timeout=50)
    assert f"best above {task_timeout()}" in text_of("E043")


@pytest.mark.parametrize(("timeout", "sound"), [(26, True), (25, False), (20, False)])
def test_e044_a_drain_is_not_killed(q_cluster: Any, timeout: int, sound: bool) -> None:
    q_cluster(timeout=timeout)
    assert list(found()) == ([] if sound else ["E044"])


def test_e044_follows_our_settings(webhooks: Any, q_cluster: Any) -> None:
    webhooks(DRAIN_SECONDS=80, TIMEOUT=15)
    q_cluster(retry=500)
    assert list(found()) == ["E044"]
    assert "= 95 seconds" in text_of("E044")


@pytest.mark.parametrize("value", [None, False, "True", 0])
def test_e045_failures_are_not_acknowledged(q_cluster: Any, value: Any) -> None:
    q_cluster(ack_failures=value)
    assert list(found()) == ["E045"]


@pytest.mark.parametrize(
    "other",
    [
        {"orm": "elsewhere"},
        {"orm": None},
        {"broker_class": "host.Broker"},
        {"sqs": {"aws_region": "eu"}},
        {"iron_mq": {"project_id": "1"}},
    ],
)
def test_e046_another_broker_than_the_web_processes_have(
    webhooks: Any, q_cluster: Any, other: Any
) -> None:
    q_cluster(ALT_CLUSTERS={"webhooks": other})
    webhooks(CLUSTER="webhooks")
    assert list(found()) == ["E046"]


@pytest.mark.parametrize(
    ("main", "other", "same"),
    [
        ({"redis": {"db": 1}}, {}, True),
        ({"redis": {"db": 1}}, {"redis": {"db": 1}}, True),
        ({"redis": {"db": 1}}, {"redis": {"db": 2}}, False),
        ({"redis": {"db": 1}}, {"django_redis": "default"}, False),
        ({"redis": {"db": 1}}, {"orm": "default"}, False),
        ({"redis": {"db": 1}}, {"mongo": {"host": "db"}}, False),
        ({"orm": "default"}, {"redis": {"db": 1}}, True),  # the ORM goes before Redis
    ],
)
def test_e046_compares_the_brokers_that_django_q2_would_pick(
    webhooks: Any, q_cluster: Any, main: Any, other: Any, same: bool
) -> None:
    q_cluster(**{"orm": None, **main, "ALT_CLUSTERS": {"webhooks": other}})
    webhooks(CLUSTER="webhooks")
    assert ("E046" in found()) is not same


def test_an_orm_broker_in_another_database_than_the_outbox_is_fine(q_cluster: Any) -> None:
    q_cluster(orm="queues")
    assert found() == {}


@pytest.mark.parametrize(
    ("keys", "sound"),
    [
        ({"workers": 4, "queue_limit": 4}, True),
        ({"workers": 4, "queue_limit": 5}, False),
        ({"workers": 4, "queue_limit": None}, False),  # 16
        ({"workers": 1, "queue_limit": None}, True),  # 1
        ({"workers": "four"}, True),  # nonsense, and not ours to judge
    ],
)
def test_w003_a_cluster_that_fetches_more_than_it_works_on(
    q_cluster: Any, keys: Any, sound: bool
) -> None:
    q_cluster(**keys)
    assert list(found()) == ([] if sound else ["W003"])


def test_w004_a_synchronous_cluster(q_cluster: Any) -> None:
    q_cluster(sync=True)
    assert list(found()) == ["W004"]


def test_w005_a_cluster_without_scheduler(q_cluster: Any) -> None:
    q_cluster(scheduler=False)
    assert list(found()) == ["W005"]


def test_an_entry_of_alt_clusters_is_judged_and_not_the_default(
    webhooks: Any, q_cluster: Any
) -> None:
    q_cluster(timeout=10, ack_failures=False, ALT_CLUSTERS={"webhooks": dict(GOOD, name="x")})
    webhooks(CLUSTER="webhooks")
    assert found() == {}
    webhooks(CLUSTER=None)
    assert sorted(found()) == ["E044", "E045"]


def test_an_entry_of_alt_clusters_takes_what_it_lacks_from_the_default(
    webhooks: Any, q_cluster: Any
) -> None:
    q_cluster(ALT_CLUSTERS={"webhooks": {"ack_failures": False}})
    webhooks(CLUSTER="webhooks")
    assert list(found()) == ["E045"]
    assert "Q_CLUSTER['ALT_CLUSTERS']['webhooks']" in text_of("E045")


def test_a_cluster_is_read_as_django_q2_reads_it() -> None:
    main = {**GOOD, "ALT_CLUSTERS": {"other": {"name": "no", "cluster_name": "no", "timeout": 5}}}
    conf = cluster.merged(main, "other")
    assert (conf["timeout"], conf["retry"], conf["name"]) == (5, 120, "main")
    assert main["ALT_CLUSTERS"] == {  # django-q2 takes the two names out of the settings; we do not
        "other": {"name": "no", "cluster_name": "no", "timeout": 5}
    }


def test_nothing_is_asked_of_a_cluster_where_nobody_is_woken(webhooks: Any, settings: Any) -> None:
    webhooks(WAKER=None)
    settings.Q_CLUSTER = {}
    assert found() == {}


def test_a_project_that_configured_nothing_hears_of_all_that_it_needs(
    webhooks: Any, settings: Any
) -> None:
    settings.WEBHOOKS = {}
    del settings.Q_CLUSTER
    assert set(found()) - {"W003"} == {"E003", "E042", "E045"}


# check --deploy


@pytest.mark.parametrize(
    ("network", "ids"),
    [
        ("127.0.0.0/8", ["W010"]),
        ("127.0.0.1", ["W010"]),
        ("::1", ["W010"]),
        ("10.0.0.0/8", ["W013"]),
        ("192.168.7.7", ["W013"]),
        ("169.254.169.254", ["W013"]),
        ("fd00::/8", ["W013"]),
        ("9.255.0.0/15", []),  # public, and so needless
        ("10.0.0.0/7", ["W013", "E036"]),
        ("172.0.0.0/8", ["W013"]),
        ("2606:4700::/32", []),
    ],
)
def test_w010_and_w013_what_is_in_the_operators_networks(
    deployed: Any, network: str, ids: list[str]
) -> None:
    deployed(ALLOWED_NETWORKS=[network])
    assert sorted(found(deploy=True)) == sorted(ids)
    assert set(found()) <= {"E036"}


def test_w013_names_the_networks_that_are_not_loopback(deployed: Any) -> None:
    deployed(ALLOWED_NETWORKS=["127.0.0.0/8", "10.1.2.3/16"])
    [message] = found(deploy=True)["W013"]
    assert "10.1.0.0/16" in message.msg
    assert "127.0.0.0" not in message.msg


@pytest.mark.parametrize(
    ("network", "wide"),
    [
        ("0.0.0.0/0", True),
        ("::/0", True),
        ("128.0.0.0/1", True),
        ("8.0.0.0/7", True),
        ("fc00::/6", True),
        ("10.0.0.0/8", False),
        ("fc00::/7", False),
    ],
)
def test_e036_a_network_that_takes_the_guard_away(webhooks: Any, network: str, wide: bool) -> None:
    webhooks(ALLOWED_NETWORKS=["10.1.0.0/16", network])
    assert list(found()) == (["E036"] if wide else [])
    assert not wide or repr(network) in text_of("E036")


def test_w011_plain_http_is_allowed(deployed: Any) -> None:
    deployed(ALLOW_HTTP=True)
    assert list(found(deploy=True)) == ["W011"]
    assert found() == {}


def test_w012_every_port_is_allowed(deployed: Any) -> None:
    deployed(ALLOWED_PORTS="any")
    assert list(found(deploy=True)) == ["W012"]
    assert found() == {}


@pytest.mark.parametrize(
    ("allowed", "base_url", "denied", "open_"),
    [
        (["shop.example.com"], "", [], ["shop.example.com"]),
        (["Shop.example.com."], "", ["shop.example.com"], []),
        ([], "https://api.example.com/app", [], ["api.example.com"]),
        (["a.example.com"], "https://b.example.com", ["a.example.com"], ["b.example.com"]),
        (["a.example.com"], "https://a.example.com", [], ["a.example.com"]),
        ([".example.com"], "", ["example.com", "www.example.com"], [".example.com"]),
        ([".example.com", "a.example.com"], "", [".example.com"], []),
        ([".shop.example.com"], "", [".example.com"], []),
        (["*"], "", [], []),  # which hosts these are, nothing tells
        (["localhost", "intranet", "10.0.0.1", "[::1]", "shop.internal", "127.0.0.1"], "", [], []),
        (["93.184.216.34", "[2606:4700::1]"], "", [], ["93.184.216.34", "[2606:4700::1]"]),
        (["93.184.216.34", "[2606:4700::1]"], "", ["93.184.216.34", "2606:4700:0::1"], []),
        ([None, 7, ""], "", [], []),
    ],
)
def test_w014_the_projects_own_hosts_are_denied(
    deployed: Any, settings: Any, allowed: Any, base_url: str, denied: Any, open_: list[str]
) -> None:
    settings.ALLOWED_HOSTS = allowed
    deployed(BASE_URL=base_url, DENIED_HOSTS=denied)
    messages = found(deploy=True)
    assert list(messages) == (["W014"] if open_ else [])
    assert found() == {}
    if open_:
        [message] = messages["W014"]
        assert f"lacks {', '.join(open_)}:" in message.msg


@pytest.mark.parametrize(
    ("throttles", "free"),
    [({}, False), ({"ping": "1/day"}, False), ({"ping": None}, True), ({"create": None}, True)],
)
def test_w015_what_is_not_throttled(deployed: Any, throttles: Any, free: bool) -> None:
    deployed(THROTTLES=throttles)
    assert list(found(deploy=True)) == (["W015"] if free else [])
    assert found() == {}


@pytest.mark.parametrize(
    ("caches", "warned"),
    [
        ({"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}, True),
        ({"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}, True),
        ({"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache"}}, False),
        ({"default": {"BACKEND": None}}, False),
        ({"default": None}, False),
        ({}, False),
        (None, False),
    ],
)
def test_w016_throttles_count_for_all_processes(
    deployed: Any, monkeypatch: pytest.MonkeyPatch, caches: Any, warned: bool
) -> None:
    # Past the fixture, which would make Django read the nonsense as well; and undone before that
    # is, or what it was in here would stay for the tests that follow.
    with monkeypatch.context() as patch:
        patch.setattr(django_settings, "CACHES", caches)
        assert list(found(deploy=True)) == (["W016"] if warned else [])
        assert found() == {}


@pytest.mark.parametrize(
    ("keys", "shared"),
    [
        ({"CLUSTER": None}, True),
        ({"CLUSTER": "main"}, True),  # the default one, by its name
        ({"CLUSTER": "webhooks"}, False),
        ({"CLUSTER": None, "WAKER": None}, False),  # no cluster delivers
    ],
)
def test_w017_a_cluster_of_its_own(deployed: Any, keys: Any, shared: bool) -> None:
    deployed(**keys)
    assert list(found(deploy=True)) == (["W017"] if shared else [])
    assert found() == {}


@pytest.mark.parametrize(
    ("url", "warned"), [("http://10.0.0.1", True), ("https://10.0.0.1", False), ("", False)]
)
def test_w018_links_lead_to_https(deployed: Any, url: str, warned: bool) -> None:
    deployed(BASE_URL=url)
    assert list(found(deploy=True)) == (["W018"] if warned else [])
    assert found() == {}


# What holds for all


def test_no_check_opens_a_connection(
    webhooks: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a check opened a connection")

    monkeypatch.setattr(BaseDatabaseWrapper, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    found(deploy=True)
    settings.WEBHOOKS = {}
    settings.Q_CLUSTER = {"redis": "redis://nowhere"}
    assert found(deploy=True)


@pytest.mark.parametrize(
    "nonsense",
    [None, 0, -1, "", "text", b"\xff", [], [None], {}, {"a": 1}, object(), 1e308, 10**99],
)
def test_no_value_makes_a_check_fail(webhooks: Any, settings: Any, nonsense: Any) -> None:
    settings.WEBHOOKS = dict.fromkeys(DEFAULTS, nonsense)
    assert found(deploy=True)
    webhooks()
    keys = [*GOOD, "ALT_CLUSTERS", "cluster_name", "redis", "sqs", "mongo", "scheduler", "sync"]
    settings.Q_CLUSTER = dict.fromkeys(keys, nonsense)
    found()
    settings.Q_CLUSTER = {**GOOD, "ALT_CLUSTERS": {"x": dict.fromkeys(keys, nonsense)}}
    webhooks(CLUSTER="x")
    found()


TABLE = Path(__file__).parents[1] / "docs" / "checks.md"
SOURCES = [
    *(Path(checks.__file__).parent).glob("*.py"),
    Path(cluster.__file__),
]


def test_every_id_is_in_the_table_of_the_documentation_and_has_a_test() -> None:
    code = "".join(source.read_text() for source in SOURCES)
    ids = set(re.findall(r'"webhooks\.([EW]\d{3})"', code)) | {id_ for id_, _ in RULES.values()}
    rows = re.findall(r"^\| `webhooks\.([EW]\d{3})` \|", TABLE.read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(ids)
    by_rule = {id_ for id_, _ in RULES.values()}  # they are tested by WRONG and RIGHT
    tests = " ".join(name for name in globals() if name.startswith("test_"))
    assert {id_ for id_ in ids - by_rule if id_.lower() not in tests} == set()


def test_the_table_names_the_key_of_each_rule() -> None:
    lines = TABLE.read_text().splitlines()
    for key, (id_, _rule) in RULES.items():
        [line] = [line for line in lines if line.startswith(f"| `webhooks.{id_}` |")]
        assert f"`{key}`" in line


def test_every_message_says_what_to_do(webhooks: Any, settings: Any) -> None:
    settings.WEBHOOKS = {key: object() for key in DEFAULTS} | {"UNKNOWN": 1}
    settings.Q_CLUSTER = {}
    for messages in found(deploy=True).values():
        for message in messages:
            assert message.hint
            assert len(message.msg) > 30


def test_an_outbox_whose_keys_are_missing_refuses_to_seal(webhooks: Any) -> None:
    """What E003 announces does happen."""
    from webhooks.crypto import seal

    webhooks(ENCRYPTION_KEYS=[])
    with pytest.raises(ImproperlyConfigured, match="ENCRYPTION_KEYS"):
        seal("text")


@pytest.mark.parametrize(
    ("scopes", "missing"),
    [
        ({"read": "Read"}, ["webhooks:read", "webhooks:write"]),
        ({"webhooks:read": "Read"}, ["webhooks:write"]),
    ],
)
def test_w006_a_mounted_api_needs_its_scopes(
    settings: Any, webhooks: Any, scopes: dict[str, str], missing: list[str]
) -> None:
    settings.OAUTH2_PROVIDER = {"SCOPES": scopes}
    said = text_of("W006")
    assert all(name in said for name in missing)


def test_w006_says_nothing_where_the_scopes_are_there_or_no_api_is(
    settings: Any, webhooks: Any
) -> None:
    settings.OAUTH2_PROVIDER = {"SCOPES": {"webhooks:read": "Read", "webhooks:write": "Write"}}
    assert "W006" not in found()
    settings.OAUTH2_PROVIDER = {"SCOPES": {"read": "Read"}}
    settings.ROOT_URLCONF = "oauth2_provider.urls"
    assert "W006" not in found()


def test_e034_times_have_a_zone(settings: Any, webhooks: Any) -> None:
    settings.USE_TZ = False
    assert "USE_TZ" in text_of("E034")
