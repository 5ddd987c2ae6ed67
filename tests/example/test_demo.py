"""``manage.py demo`` as a stranger runs it: from another directory, with an empty HOME."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import IO

import pytest

from tests.example.running import ROOT, environment, none_left, processes

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="looks for left-over processes in /proc"
)

KEYS = [
    *("emitted", "recorded", "deliveries", "delivered", "dead", "attempts", "retries"),
    *("duplicates", "verified", "p50_ms", "p95_ms", "per_s", "ok"),
]


class Demo:
    """A running ``manage.py demo``; its output is read as it comes."""

    def __init__(self, home: Path, *arguments: str) -> None:
        self.home = home
        self.mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "manage.py"), "demo", *arguments],
            cwd=home,
            env=environment(home, self.mark),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self.errors: list[str] = []
        self._readers = [
            self._read(self.process.stdout, self.lines),
            self._read(self.process.stderr, self.errors),
        ]

    @staticmethod
    def _read(stream: IO[str] | None, into: list[str]) -> threading.Thread:
        assert stream is not None
        reader = threading.Thread(target=lambda: into.extend(iter(stream.readline, "")))
        reader.start()
        return reader

    @property
    def output(self) -> str:
        return "".join([*self.lines, *self.errors])

    def wait_for(self, text: str, seconds: float = 60) -> str:
        """The first line that has the text in it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for line in list(self.lines):
                if text in line:
                    return line
            assert self.process.poll() is None, self.output
            time.sleep(0.1)
        raise AssertionError(f"no {text!r} within {seconds} s in:\n{self.output}")

    def wait(self, seconds: float) -> int:
        status = self.process.wait(seconds)
        for reader in self._readers:
            reader.join(5)
        return status

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        # The guard ends the rest.
        assert none_left(self.mark, 30) == {}
        for reader in self._readers:
            reader.join(5)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


def delivered_within(seconds: float, database: Path) -> int:
    """How many deliveries succeeded by now; waits for the first one."""
    deadline = time.monotonic() + seconds
    delivered = 0
    with closing(sqlite3.connect(database)) as connection:
        while not delivered and time.monotonic() < deadline:
            time.sleep(0.2)
            (delivered,) = connection.execute(
                "SELECT count(*) FROM webhooks_delivery WHERE state = 'delivered'"
            ).fetchone()
    return delivered


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir()
    return path


@pytest.fixture
def demo(home: Path) -> Iterator[type[Demo]]:
    started: list[Demo] = []

    class Started(Demo):
        def __init__(self, *arguments: str) -> None:
            super().__init__(home, *arguments)
            started.append(self)

    yield Started
    for each in started:
        each.close()


def test_once_ties_out_and_leaves_nothing_behind(demo, home):
    running = demo("--once", "--events", "200", "--json")
    assert running.wait(150) == 0, running.output
    told = json.loads(running.lines[-1])
    assert list(told) == KEYS
    assert told["ok"] is True
    assert told["emitted"] == told["recorded"] == 200
    assert told["deliveries"] == told["delivered"] == told["verified"] > 200
    assert told["dead"] == 0
    assert told["attempts"] == told["deliveries"] + told["retries"]
    assert told["retries"] > 0  # a tenth of all requests fails
    assert 0 < told["p50_ms"] <= told["p95_ms"]
    assert told["per_s"] > 0
    assert running.errors == []
    assert processes(running.mark) == {}
    assert list(home.iterdir()) == []


def test_once_says_what_is_missing_when_it_fails(demo, home):
    running = demo("--once", "--events", "30", "--json", "--fail", "0.97", "--timeout", "4")
    assert running.wait(90) == 1, running.output
    told = json.loads(running.lines[-1])
    assert list(told) == KEYS
    assert told["ok"] is False
    assert told["emitted"] == told["recorded"] == 30
    assert told["verified"] < told["deliveries"]
    errors = "".join(running.errors)
    assert "time is up" in errors
    assert "deliveries are not delivered" in errors
    assert "Traceback" not in errors
    assert processes(running.mark) == {}
    assert list(home.iterdir()) == []


def test_once_can_be_interrupted(demo):
    running = demo("--once", "--events", "5000")
    running.wait_for("subscriber clicks")
    running.process.send_signal(signal.SIGINT)
    assert running.wait(60) == 128 + signal.SIGINT
    assert "Traceback" not in running.output
    assert processes(running.mark) == {}


@pytest.mark.parametrize("child", ["web server", "cluster", "subscriber clicks"])
def test_once_ends_with_a_reason_when_a_child_is_killed(demo, child):
    running = demo("--once", "--events", "50000")
    line = running.wait_for(f"  {child} ")
    running.wait_for("emitted")
    os.kill(int(line.split("pid ")[1].split(",")[0]), signal.SIGKILL)
    assert running.wait(60) == 1
    assert f"{child.replace(' ', '-')} (pid" in running.output
    assert "status -9" in running.output
    assert "Traceback" not in running.output
    assert processes(running.mark) == {}


@pytest.mark.parametrize("how", ["ctrl-c", "sigterm"])
def test_everything_runs_and_is_stopped_cleanly(demo, home, how):
    database = home / "demo.sqlite3"
    running = demo("--database", str(database), "--rate", "20")
    address = running.wait_for("Look at").split()[-1]
    running.wait_for("Ctrl-C stops")
    with urllib.request.urlopen(address, timeout=10) as page:
        assert b"Log in" in page.read()
    with urllib.request.urlopen(running.wait_for("push dashboard").split()[0], timeout=10) as page:
        assert b"Log in" in page.read()
    subscriber = running.wait_for("what a subscriber makes").split()[0]
    with urllib.request.urlopen(subscriber, timeout=10) as page:
        assert b"A webhook subscriber" in page.read()
    with urllib.request.urlopen(running.wait_for("Read ").split()[-1], timeout=10) as page:
        assert b"push.clicked" in page.read()
    assert delivered_within(30, database) > 0
    children = set(processes(running.mark)) - {running.process.pid}
    assert len(children) >= 6  # two receivers, web, two clusters and guard
    # None of them hears the terminal's Ctrl-C.
    assert running.process.pid not in {os.getpgid(pid) for pid in children}
    if how == "ctrl-c":
        # As a terminal does it: to the whole foreground group.
        os.killpg(running.process.pid, signal.SIGINT)
    else:
        running.process.send_signal(signal.SIGTERM)
    assert running.wait(60) == 0, running.output
    assert "Traceback" not in running.output
    assert running.errors == []
    assert processes(running.mark) == {}


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_printed_lines_call_the_api(demo, home):
    running = demo("--database", str(home / "demo.sqlite3"), "--rate", "1")
    running.wait_for("Ctrl-C stops")
    lines = [running.wait_for("TOKEN=$("), running.wait_for("curl -H")]
    said = subprocess.run(
        ["bash", "-euc", "".join(lines)], capture_output=True, text=True, timeout=30, check=True
    )
    names = [each["name"] for each in json.loads(said.stdout)["results"]]
    assert {"push.sent", "push.clicked"} <= set(names)


def test_the_subscribers_have_subscribed_over_the_api(demo, home):
    database = home / "demo.sqlite3"
    running = demo("--database", str(database), "--rate", "1")
    running.wait_for("Ctrl-C stops")
    with closing(sqlite3.connect(database)) as connection:
        owners = connection.execute(
            "SELECT s.requester, a.client_id, s.scopes FROM webhooks_subscription s"
            " JOIN oauth2_provider_application a ON a.id = s.application_id"
        ).fetchall()
        digests = connection.execute(
            "SELECT content, callback_url FROM webhooks_subscription WHERE trigger = 'hourly'"
        ).fetchall()
    assert owners == [("app:demo", "demo", "webhooks:read webhooks:write")] * 3
    assert digests == [("counts", f"{running.wait_for('what a subscriber').split()[0]}digests")]


def test_a_second_run_goes_on_with_the_first_ones_subscriptions(demo, home):
    arguments = ("--database", str(home / "demo.sqlite3"), "--rate", "5")
    lines = []
    for _ in range(2):
        running = demo(*arguments)
        line = running.wait_for("subscriber everything").split()
        lines.append([word for word in line if word.startswith("http")])
        assert delivered_within(30, home / "demo.sqlite3") > 0
        running.process.send_signal(signal.SIGINT)
        assert running.wait(60) == 0, running.output
    assert lines[0] == lines[1]


def test_a_demo_that_is_killed_leaves_no_process(demo, home):
    running = demo("--database", str(home / "demo.sqlite3"))
    running.wait_for("Ctrl-C stops")
    running.process.kill()
    assert none_left(running.mark, 30) == {}
