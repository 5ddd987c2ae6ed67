"""Secrets stay secret: in a whole journey through real processes, and in the logs of all tests."""

from __future__ import annotations

import base64
import json
import logging
import os
import secrets as random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session
from django.db import connection

from tests import leaks
from tests.conftest import _listens
from tests.hostile.canaries import overheard, search, spellings, tables
from tests.world import (
    Answer,
    Received,
    start,
    until,
)
from webhooks.crypto import seal
from webhooks.formats.signing import generate_secret
from webhooks.models import DeliveryAttempt

pytestmark = pytest.mark.django_db(transaction=True)

ROOT = Path(__file__).parents[2]
REDIS = (os.environ.get("REDIS_HOST", "127.0.0.1"), int(os.environ.get("REDIS_PORT", "6379")))
REDIS_DB = "11"
VALUE, PASSWORD = "canary-of-a-header", "canary-of-a-password"


# A whole journey


def echo(post: Received) -> Answer:
    """What debugging endpoints do: answer with all that came."""
    hook = post.headers.get("x-hook-secret")
    said = json.dumps(post.headers).encode()
    return Answer(headers={"X-Hook-Secret": hook} if hook else None, body=said)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A running qcluster, on Redis where there is one; the environment for others beside it."""
    environ = {
        "DJANGO_SETTINGS_MODULE": "tests.hostile.journey_settings",
        "WEBHOOKS_TEST_LOG": str(tmp_path / "debug.log"),
        "REDIS_DB": REDIS_DB,
    }
    if _listens(*REDIS):
        environ["WEBHOOKS_TEST_BROKER"] = "redis"
        _redis().flushdb()
    process = start("qcluster", **environ)
    yield environ
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)


def _redis() -> Any:
    from redis import Redis

    return Redis(*REDIS, db=int(REDIS_DB))


def _in_redis() -> bytes:
    """All keys and values of our Redis database."""
    server = _redis()
    found = []
    for key in server.scan_iter():
        kind = server.type(key)
        read = {
            b"string": lambda key=key: server.get(key),
            b"list": lambda key=key: server.lrange(key, 0, -1),
            b"set": lambda key=key: server.smembers(key),
            b"hash": lambda key=key: server.hgetall(key),
            b"zset": lambda key=key: server.zrange(key, 0, -1),
        }[kind]()
        found += [key, read if isinstance(read, bytes) else repr(read).encode()]
    return b"\n".join(found)


def test_a_whole_journey_leaves_no_secret_anywhere(
    cluster: dict[str, str], receivers: Any, tmp_path: Path
) -> None:
    canaries = {
        "brought": generate_secret(),
        "rotated": generate_secret(),
        **{name: random.token_urlsafe(18) for name in ("header", "new", "password")},
    }
    in_url = f"t+{random.token_urlsafe(18)}"
    good, hook = receivers(echo), receivers(echo)
    bad = receivers(lambda post: Answer(status=500, body=echo(post).body))
    urls = {
        name: f"{each.url}?token={in_url}"
        for name, each in (("good", good), ("bad", bad), ("hook", hook))
    }
    journey = {"JOURNEY": json.dumps({"canaries": canaries, "urls": urls})}
    on_redis = "WEBHOOKS_TEST_BROKER" in cluster
    with overheard(*REDIS) if on_redis else nullcontext(bytearray()) as said:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "tests.hostile.secrets_journey"],
            env={
                **os.environ,
                "WEBHOOKS_TEST_DB_NAME": str(connection.settings_dict["NAME"]),
                **cluster,
                **journey,
            },
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        until(
            lambda: any(post.json.get("data") == {"last": True} for post in good.posts),
            30,
            "the last POST",
        )
    canaries |= {f"made {i}": each for i, each in enumerate(json.loads(done.stdout))}
    assert len(canaries) == 10
    # All of it was used: the secrets sign, and the rest came to the receivers.
    came = json.dumps([post.headers for post in (*good.posts, *bad.posts, *hook.posts)])
    pair = base64.b64encode(f"user:{canaries['password']}".encode()).decode()
    assert all(each in came for each in (canaries["header"], canaries["new"], pair))
    hidden = {**canaries, "basic auth": pair, "url": in_url}

    log = (tmp_path / "debug.log").read_bytes()
    for heard in (
        b'"POST /in HTTP/1.1" 500',
        b"django.request",
        b"webhooks.tasks.drain",
        b"INFO webhooks ",
    ):
        assert heard in log, heard
    found = search("log", log, hidden)
    if on_redis:
        assert b"PUSH" in said.upper(), "tasks went through it"
        found += search("commands to Redis", bytes(said), hidden)
        found += search("Redis", _in_redis(), hidden)
    rows = b""
    for table, row in tables():
        rows += row
        # The URL is stored as it is, query included: where else would it come from?
        left = {**hidden, "url": " "} if table == "webhooks_subscription" else hidden
        found += search(table, row, {name: each for name, each in left.items() if each != " "})
    for row in Session.objects.all():
        found += search("session", repr(row.get_decoded()).encode(), hidden)
    if connection.vendor == "sqlite":
        for path in Path(connection.settings_dict["NAME"]).parent.glob(
            f"{Path(connection.settings_dict['NAME']).name}*"
        ):
            found += search(path.suffix, path.read_bytes(), {**canaries, "basic auth": pair})
    assert found == []
    # The search would have found it.
    assert b"********" in rows, "the echoes were stored, without the secrets"
    assert in_url.encode() in rows
    assert LogEntry.objects.count() == 2
    kinds = set(DeliveryAttempt.objects.values_list("trigger", flat=True))
    assert kinds >= {"first", "retry", "ping", "manual", "replay"}


@pytest.mark.parametrize("around", [b"", b"a", b"ab", b"abc"])
def test_the_search_finds_every_spelling(around: bytes) -> None:
    secret = generate_secret()
    key = base64.b64decode(secret.removeprefix("whsec_"))
    for told in (secret.encode(), key):
        text = around + told + around
        written = [text, base64.b64encode(text), base64.urlsafe_b64encode(text)]
        written += [text.hex().encode(), repr(text).encode(), quote(text).encode()]
        for each in written:
            assert search("here", each, {"it": secret}) == [("here", "it")], each
    assert search("here", base64.b64encode(random.token_bytes(400)), {"it": secret}) == []
    assert min(map(len, spellings(secret))) > 20


# The hunter in every test


def test_the_hunter_hears_what_nobody_listens_to(request: pytest.FixtureRequest) -> None:
    hunter = request.config.pluginmanager.get_plugin("leaks")
    secret = generate_secret()
    seal(secret)
    seal(json.dumps({"X-Token": VALUE}))
    seal(f"user:{PASSWORD}")
    told = logging.getLogger("somebody.else")
    pair = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
    for said in (secret, secret[6:], VALUE, f"user:{PASSWORD}", pair):
        told.debug("here it is: %s", said)
        with pytest.raises(AssertionError, match=r"logged by somebody\.else") as caught:
            hunter.search()
        assert said not in str(caught.value)
        try:
            raise ValueError from KeyError(said)
        except ValueError:
            told.debug("inside", exc_info=True)
        with pytest.raises(AssertionError, match=r"somebody\.else"):
            hunter.search()
    told.warning("nothing of the kind")
    hunter.search()


def test_the_hunter_changes_nothing_of_what_is_handled(caplog: pytest.LogCaptureFixture) -> None:
    told = logging.getLogger("somebody.quiet")
    told.setLevel(logging.ERROR)
    told.warning("hush")
    assert caplog.records == []
    told.error("heard")
    assert [record.getMessage() for record in caplog.records] == ["heard"]
    assert list(leaks.forms("plain")) == ["plain"]
