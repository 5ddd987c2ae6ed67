"""What the answer to a POST means. The one place that knows what counts as success."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum

from webhooks.transports import base

#: The error codes that follow from a status line; the others are the transport's.
REDIRECT = "redirect"
CLIENT_ERROR = "client_error"
GONE = "gone"
RATE_LIMITED = "rate_limited"
SERVER_ERROR = "server_error"

#: A receiver may ask for at most so many seconds of quiet.
MAX_RETRY_AFTER = 86_400.0


class Verdict(Enum):
    DELIVERED = "delivered"
    FAILED = "failed"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Outcome:
    """verdict, error code ("" for a success), and the quiet that the receiver asked for, in s.

    overloaded: the endpoint could not keep up, or said so (a timeout, 429, 503).
    """

    verdict: Verdict
    code: str = ""
    retry_after: float | None = None
    overloaded: bool = False


#: Nearly all answers mean the same.
SUCCESS = Outcome(Verdict.DELIVERED)


def judge(response: base.Response, now: datetime) -> Outcome:
    """Success is 200 to 299, and nothing else; redirects are never followed.

    ``410 Gone`` means that the endpoint wants no more (REST Hooks). ``Retry-After`` is heard with
    429 and 503 (RFC 9110, section 10.2.3).
    """
    status = response.status_code
    if status is None:
        code = response.error_code or base.INTERNAL_ERROR
        return Outcome(Verdict.FAILED, code, overloaded=code == base.TIMEOUT)
    if 200 <= status < 300:
        return SUCCESS
    if status == 410:
        return Outcome(Verdict.GONE, GONE)
    overloaded = status in (429, 503)
    wait = retry_after(response.retry_after, now) if overloaded else None
    return Outcome(Verdict.FAILED, _code(status), wait, overloaded)


def concerns_lane(response: base.Response, now: datetime) -> bool:
    """Whether an answer ends or rests the whole lane, and not its delivery alone.

    Nearly none does, and they are told from the others without being judged.
    """
    if response.status_code != 410 and not response.retry_after:
        return False
    outcome = judge(response, now)
    return outcome.verdict is Verdict.GONE or outcome.retry_after is not None


def _code(status: int) -> str:
    if status == 429:
        return RATE_LIMITED
    if 300 <= status < 400:
        return REDIRECT
    if 400 <= status < 500:
        return CLIENT_ERROR
    if 500 <= status < 600:
        return SERVER_ERROR
    return base.BAD_RESPONSE


def retry_after(value: str, now: datetime) -> float | None:
    """Seconds that a ``Retry-After`` header asks for, at most a day; None for none or garbage."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), MAX_RETRY_AFTER)
    try:
        moment = parsedate_to_datetime(value)
    except (TypeError, ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    seconds = (moment - now).total_seconds()
    return min(seconds, MAX_RETRY_AFTER) if seconds > 0 else None
