"""The reasons of a verdict, in sentences: what is wrong, since when, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from webhooks import remedies
from webhooks.conf import settings
from webhooks.health.verdicts import Reason, grouped, rate, shown, span
from webhooks.health.workers import Scheduled
from webhooks.models import Lane, Subscription
from webhooks.models.stats import Sums
from webhooks.models.subscription import FOR_FAILING, OnSuspend, Status

#: By the reason of a suspension: what happened, and what to do.
_SUSPENDED: Final = {
    "client": (
        gettext_lazy("The subscription was suspended by its owner on %(since)s."),
        gettext_lazy("Resume it to go on."),
    ),
    "operator": (
        gettext_lazy("The subscription was suspended by an operator of the service on %(since)s."),
        gettext_lazy("Ask them to resume it."),
    ),
    "entitlement_lost": (
        gettext_lazy(
            "The subscription was suspended, because its application, its user or its grant is "
            "gone, on %(since)s."
        ),
        gettext_lazy("Authorize the application again and resume it."),
    ),
    FOR_FAILING: (
        gettext_lazy(
            "The subscription was suspended by the service, because its endpoint had failed for "
            "days, on %(since)s."
        ),
        gettext_lazy("Repair the endpoint and resume it."),
    ),
}


def failing(failures: int, since: datetime | None, code: str) -> Reason:
    """Why a subscription's attempts fail. code: the last error's; "": it is not on record."""
    if since is None:
        said = ngettext(
            "%(failures)d attempt has failed.",
            "%(failures)d attempts in a row have failed.",
            failures,
        )
    else:
        said = ngettext(
            "%(failures)d attempt has failed since %(since)s.",
            "%(failures)d attempts in a row have failed since %(since)s.",
            failures,
        )
    said %= {"failures": failures, "since": since and shown(since)}
    return Reason(code or "failing", _with_remedy(said, _("Last error"), code))


def parked(lane: Lane, code: str) -> Reason:
    """Why nothing but a probe is sent. code: the last error's; "": it is not on record."""
    assert lane.parked_since is not None
    what = {"since": shown(lane.parked_since), "failures": lane.failures}
    what |= {"code": code or _("an error"), "at": lane.paused_until and shown(lane.paused_until)}
    said = (
        _(
            "Parked since %(since)s, after attempts that failed with %(code)s (by now "
            "%(failures)d in a row): one POST at a time tries the endpoint, the next one at %(at)s."
        )
        if lane.paused_until
        else _(
            "Parked since %(since)s, after attempts that failed with %(code)s (by now "
            "%(failures)d in a row): one POST at a time tries the endpoint."
        )
    )
    then = _("The first that succeeds lets all others follow; none is given up meanwhile.")
    return Reason("parked", f"{said % what} {then}")


def suspended(subscription: Subscription) -> Reason:
    """Why a subscription is suspended."""
    code = subscription.status_reason or "client"
    what, to_do = _SUSPENDED.get(
        code,
        (_("The subscription was suspended (%(code)s) on %(since)s."), _("Resume it to go on.")),
    )
    parts = [str(what) % {"since": shown(subscription.status_since), "code": code}, str(to_do)]
    if code == FOR_FAILING and settings.PROBE_SECONDS is not None:
        parts.append(_("It is tried now and then, too, and resumed when it answers."))
    if subscription.on_suspend == OnSuspend.DISCARD:
        parts.append(_("New events are discarded until then."))
    else:
        parts.append(_("New events are kept until then."))
    if (expires_at := backlog_expires_at(subscription)) is not None:
        parts.append(_("What still waits on %(at)s expires.") % {"at": shown(expires_at)})
    return Reason(code, " ".join(parts))


def inactive(subscription: Subscription) -> Reason:
    """Why a subscription that is not subscribed gets nothing."""
    if subscription.status == Status.SUSPENDED:
        return suspended(subscription)
    since = {"since": shown(subscription.status_since)}
    if subscription.status == Status.PENDING:
        message = _(
            "The endpoint has not confirmed the subscription's handshake (since %(since)s). "
            "Nothing else is sent until it does: see the attempts, and let it answer as the "
            "documentation of the handshake says."
        )
        return Reason(subscription.status_reason or "handshake", message % since)
    if subscription.status_reason == "gone":
        message = _(
            "The subscription ended on %(since)s because its endpoint answered 410 Gone. Subscribe "
            "anew to receive events again."
        )
    else:
        message = _("The subscription ended on %(since)s. Subscribe anew to receive events again.")
    return Reason(subscription.status_reason or "client", message % since)


def backlog_expires_at(subscription: Subscription) -> datetime | None:
    """When what is pending for a suspended subscription expires; None for any other."""
    if subscription.status != Status.SUSPENDED:
        return None
    since: datetime = subscription.status_since
    return since + timedelta(seconds=settings.SUSPENDED_MAX_AGE)


def unsigned() -> Reason:
    """Why nothing is sent, although the endpoint is well."""
    message = _(
        "The signing secret cannot be read, and nothing is sent unsigned: deliveries wait. Rotate "
        "the secret, or tell an operator of the service."
    )
    return Reason("secret_unreadable", message)


def low_rate(day: Sequence[Sums]) -> Reason:
    """Why too few of a day's attempts succeeded. Its code is the most frequent error's."""
    # Rounded down: "98.0 % succeeded" is no trouble.
    percent = number_format(int((rate(day) or 0.0) * 1000) / 10, 1)
    said = _("%(percent)s %% of the attempts of the last 24 hours succeeded.") % {
        "percent": percent
    }
    code = max((each for each in day if each.code), key=lambda each: each.attempts).code
    return Reason(code, _with_remedy(said, _("Most frequent error"), code))


def dead_letters(count: int) -> Reason:
    message = ngettext(
        "%(count)d delivery was given up in the last 24 hours. See its attempts, mend what went "
        "wrong, and have it redelivered.",
        "%(count)d deliveries were given up in the last 24 hours. See their attempts, mend what "
        "went wrong, and have them redelivered.",
        count,
    )
    return Reason("dead_letters", message % {"count": count})


def late(pending: int, due_at: datetime, *, more: bool) -> Reason:
    """Why a subscription's deliveries are late. more: there may be more than were counted."""
    message = (
        _(
            "Deliveries are late: %(many)s or more are pending, the first due since %(since)s. "
            "Answer faster or allow more POSTs at once; if the endpoint is quick, see the "
            "service's status."
        )
        if more
        else _(
            "Deliveries are late: %(many)s are pending, the first due since %(since)s. Answer "
            "faster or allow more POSTs at once; if the endpoint is quick, see the service's "
            "status."
        )
    )
    return Reason("delayed", message % {"many": grouped(pending), "since": shown(due_at)})


# Of the service


def no_worker(delay: timedelta) -> Reason:
    message = _(
        "Work has been due for %(minutes)d min, and no worker has been heard of. Is one running?"
    )
    return Reason("no_worker", message % {"minutes": minutes(delay)})


def abandoned(delay: timedelta) -> Reason:
    message = _(
        "What waits longest has waited for a worker for %(minutes)d min. Start more workers."
    )
    return Reason("abandoned", message % {"minutes": minutes(delay)})


def outage() -> Reason:
    return Reason("outage", _("More than half of the attempts of the last 15 minutes failed."))


def delayed(delay: timedelta) -> Reason:
    message = _("What waits longest has waited for a worker for %(seconds)d s.")
    return Reason("delayed", message % {"seconds": round(delay.total_seconds())})


def suspended_lately(count: int) -> Reason:
    message = ngettext(
        "%(count)d subscription was suspended automatically in the last 24 hours.",
        "%(count)d subscriptions were suspended automatically in the last 24 hours.",
        count,
    )
    return Reason("suspended", message % {"count": count})


def late_schedule(late: Sequence[Scheduled]) -> Reason:
    """Why what runs by the clock is late."""
    said = _("%(name)s is %(late)s")
    what = " ".join(said % {"name": each.name, "late": lateness(each)} for each in late)
    return Reason("late_schedule", f"{what} {how_to_fix(late[0])}")


def lateness(each: Scheduled) -> str:
    """How late it is, in words."""
    if each.ran_at is None:
        return _("never run")
    if each.late is None:
        return _("on time")
    return _("%(time)s late: is a worker running?") % {"time": span(each.late)}


def how_to_fix(each: Scheduled) -> str:
    """What to do about what is late or never ran; "": nothing."""
    if each.ran_at is None:
        return _("Run manage.py webhooks_schedules once, and a cluster: manage.py qcluster.")
    if each.late is None:
        return ""
    return _(
        "Start a cluster (manage.py qcluster, with Q_CLUSTER_NAME where it has a name of its own); "
        "where one runs, see that its scheduler is on and that other tasks leave it a worker."
    )


def minutes(time: timedelta) -> int:
    return round(time.total_seconds() / 60)


def _with_remedy(said: str, label: str, code: str) -> str:
    remedy = remedies.remedy(code)
    if not remedy.title:
        return said
    return f"{said} {label}: {remedy.title}. {remedy.fix}"
