"""Each transport against everything that a receiver may do, beside a receiver that behaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict

import pytest
from django.test import override_settings

from tests.hostile.modes import SCHEMES, SMUGGLING
from tests.hostile.running import NAMES, ROOT, Hostile
from tests.hostile.sending import CONCURRENCY, Run, run
from tests.transports.posting import LOOPBACK, TRANSPORTS, post, transport_named
from webhooks.transports.base import EXCERPT_BYTES, Transport

#: Seconds over its deadline within which a POST must have ended.
GRACE = 1.0
#: Bytes by which the sender's memory may rise, whatever it is sent.
MAX_RISE = 20_000_000


@pytest.fixture(scope="module")
def runs() -> dict[str, Run]:
    """What was measured, by transport: each test looks at a part of it."""
    return {}


each_transport = pytest.fixture(params=TRANSPORTS, ids=lambda path: path.split(".")[-2])


@each_transport
def the_run(request: pytest.FixtureRequest, hostile: Hostile, runs: dict[str, Run]) -> Run:
    made = transport_named(request.param, hostile.ca_file)
    if request.param not in runs:
        transport = made(concurrency=CONCURRENCY)
        with override_settings(WEBHOOKS=LOOPBACK):
            runs[request.param] = run(transport, hostile.cases(), hostile.good["https"] + "normal")
        transport.close()
    return runs[request.param]


@pytest.mark.parametrize("name", NAMES)
def test_what_comes_of_it(the_run: Run, hostile: Hostile, name: str) -> None:
    response, case = the_run.responses[name], hostile.case(name)
    assert (response.status_code, response.error_code) == (case.status, case.error_code), response
    assert response.excerpt.startswith(case.excerpt)
    assert len(response.excerpt) <= EXCERPT_BYTES
    assert "\0" not in response.excerpt
    assert "forged" not in response.excerpt
    if case.truncated is not None:
        assert response.truncated is case.truncated
    assert bool(response.error_detail) is (case.status is None)
    assert "127.0.0" not in response.error_detail
    assert response.elapsed_ms / 1000 < case.timeout + GRACE
    assert the_run.lasted[name] < case.timeout + GRACE


def test_a_good_receiver_is_served_meanwhile(the_run: Run) -> None:
    assert {response.status_code for response in the_run.good} == {200}
    assert len(the_run.good) > 20
    slowest = max(response.elapsed_ms for response in the_run.good)
    assert slowest < 2000, f"{slowest} ms"


@each_transport
def transport(request: pytest.FixtureRequest, hostile: Hostile) -> Iterator[Transport]:
    made = transport_named(request.param, hostile.ca_file)(concurrency=2)
    with override_settings(WEBHOOKS=LOOPBACK):
        yield made
    made.close()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("mode", SMUGGLING)
def test_what_follows_an_answer_is_not_the_answer_to_the_next_request(
    transport: Transport, hostile: Hostile, mode: str, scheme: str
) -> None:
    """The receiver answers twice to the first request of a connection, once to each later one."""
    case = hostile.case(f"{scheme}:{mode}")
    answers = [post(transport, case.url) for _ in range(3)]
    said = {(answer.status_code, answer.excerpt) for answer in answers}
    assert said <= {(case.status, case.excerpt), (200, "ok")}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_cookies_are_never_sent_back(transport: Transport, hostile: Hostile, scheme: str) -> None:
    url = hostile.good[scheme] + "cookies"
    said = [post(transport, url, lane=lane).excerpt for lane in ("a", "a", "b")]
    assert said == ["cookie: none"] * 3


@pytest.mark.parametrize("path", TRANSPORTS, ids=lambda path: path.split(".")[-2])
def test_memory_rises_by_less_than_20_mb(hostile: Hostile, path: str) -> None:
    transport_named(path)  # skips where it is not installed
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostile.sending", path, json.dumps(asdict(hostile))],
        cwd=ROOT,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "WEBHOOKS_TEST_SETTINGS": json.dumps(LOOPBACK),
        },
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert measured["posts"] == len(NAMES)
    assert measured["rise"] < MAX_RISE, f"{measured['rise'] / 1e6:.1f} MB"
