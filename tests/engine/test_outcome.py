"""What an answer means."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from webhooks.engine.outcome import Outcome, Verdict, judge, retry_after
from webhooks.transports import base
from webhooks.transports.base import Response

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 226, 299])
def test_every_2xx_is_a_success(status: int) -> None:
    assert judge(Response(status_code=status), NOW) == Outcome(Verdict.DELIVERED)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (199, "bad_response"),
        (300, "redirect"),
        (301, "redirect"),
        (304, "redirect"),
        (308, "redirect"),
        (400, "client_error"),
        (401, "client_error"),
        (404, "client_error"),
        (429, "rate_limited"),
        (499, "client_error"),
        (500, "server_error"),
        (503, "server_error"),
        (599, "server_error"),
        (600, "bad_response"),
        (999, "bad_response"),
    ],
)
def test_every_other_status_is_a_failure_with_a_code(status: int, code: str) -> None:
    found = judge(Response(status_code=status), NOW)
    assert (found.verdict, found.code, found.retry_after) == (Verdict.FAILED, code, None)
    assert found.overloaded is (status in (429, 503))


def test_410_means_that_the_endpoint_wants_no_more() -> None:
    assert judge(Response(status_code=410), NOW) == Outcome(Verdict.GONE, "gone")


@pytest.mark.parametrize("code", [base.TIMEOUT, base.DNS_ERROR, base.BLOCKED_ADDRESS])
def test_without_a_status_the_transports_code_stands(code: str) -> None:
    found = judge(Response(error_code=code), NOW)
    assert found == Outcome(Verdict.FAILED, code, overloaded=code == base.TIMEOUT)


def test_an_answer_without_status_and_code_is_still_a_failure_with_a_code() -> None:
    assert judge(Response(), NOW) == Outcome(Verdict.FAILED, base.INTERNAL_ERROR)


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_heard_with_429_and_503(status: int) -> None:
    assert judge(Response(status_code=status, retry_after="7"), NOW).retry_after == 7


@pytest.mark.parametrize("status", [200, 302, 400, 500, 502])
def test_retry_after_is_not_heard_with_others(status: int) -> None:
    assert judge(Response(status_code=status, retry_after="7"), NOW).retry_after is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 120 ", 120.0),
        ("86400", 86_400.0),
        ("86401", 86_400.0),
        ("9" * 400, 86_400.0),
        ("Sun, 22 Nov 2026 10:00:30 GMT", 30.0),
        ("Sun, 22 Nov 2026 11:00:30 +0100", 30.0),
        ("Sun, 22 Nov 2026 10:00:30 -0000", 30.0),
        ("Fri, 01 Jan 2100 00:00:00 GMT", 86_400.0),
        # In the past, or not a time at all: as if there were none.
        ("Sun, 22 Nov 2026 09:59:59 GMT", None),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("1e3", None),
        ("0x10", None),
        ("²", None),
        ("١٢", None),
        ("soon", None),
        ("120 seconds", None),
        ("Sun, 99 Nov 2026 10:00:30 GMT", None),
        ("Fri, 31 Dec 99999 23:59:59 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_at_most_a_day(
    value: str, seconds: float | None
) -> None:
    assert retry_after(value, NOW) == seconds


def test_no_garbage_in_retry_after_raises() -> None:
    rng = random.Random(7)
    pieces = ["Sun,", "22", "Nov", "2026", "10:00:30", "GMT", "+9999", "-0000", "0", "99999999999"]
    pieces += [",", ":", "::", " ", "\t", "é", "\x7f", "T", "Z", "0001", "9999", "-", "+", "a" * 80]
    for _ in range(5000):
        value = rng.choice(["", " "]).join(rng.choices(pieces, k=rng.randint(0, 8)))
        seconds = retry_after(value, NOW)
        assert seconds is None or 0 <= seconds <= timedelta(days=1).total_seconds(), value
