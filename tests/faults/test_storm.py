"""The short form of the long run (``python -m tests.faults``), and crowds of workers that die."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from django.db import connection

from tests.faults.servers import Missing, Postgres
from tests.faults.storm import Storm
from tests.world import ROOT

#: Shorter than the check allows, so that nobody waits long for the lanes of the dead: a POST still
#: ends well within its lease, and the lease is renewed twice before it gets tight.
LEASE = 12


@pytest.mark.django_db(transaction=True)
def test_a_crowd_of_workers_that_are_killed_loses_nothing_and_repeats_only_what_was_open(
    settings: Any,
) -> None:
    waker = {"WAKER": "webhooks.engine.wake.enqueue_drain"}
    settings.WEBHOOKS = {**settings.WEBHOOKS, **waker}
    every = {"kill": 1.5, "die": 2.5, "term": 3.0, "flush": 2.0}
    workers = 8 if connection.vendor == "postgresql" else 3
    storm = Storm(seconds=8, faults=every, seed=7, workers=workers, lease=LEASE, rate=25)
    storm.run()
    assert storm.wrong == [], json.dumps(storm.summary, indent=1)
    assert storm.summary["events"] > 40
    assert storm.summary["rolled back"] > 0


@pytest.mark.postgres
def test_postgresql_crashes_five_times_under_load() -> None:
    """On a cluster of its own, by the command of the long run."""
    try:
        Postgres.programs()
    except Missing as missing:
        pytest.fail(str(missing)) if os.environ.get("CI") else pytest.skip(str(missing))
    arguments = ("--minutes", "0.2", "--workers", "2", "--seed", "9", "--lease", str(LEASE))
    done = subprocess.run(
        [
            *(sys.executable, "-W", "error", "-m", "tests.faults", "--database", "postgres"),
            *("--own-server", "--every", "crash=1.5", *arguments),
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    summary = json.loads(done.stdout)
    assert summary["faults"]["PostgreSQL crashed"] >= 5
    assert summary["delivered"] > 100
    assert summary["POSTs without a record"] == 0
