"""What to do about each error: one title and one sentence for each code, for people.

The API shows them beside an attempt, and so may any page. A code is judged in
:mod:`webhooks.engine.outcome` or comes from a transport; here is only said what it means to the
owner of the endpoint. Deliveries that ended without a failed attempt have reasons of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from webhooks.engine import outcome
from webhooks.transports import base


@dataclass(frozen=True, slots=True)
class Remedy:
    """title: the error in a few words. fix: what its owner can do; both "" for an unknown code."""

    title: str
    fix: str


REMEDIES: Final[dict[str, tuple[Promise | str, Promise | str]]] = {
    base.TIMEOUT: (
        _("No answer in time"),
        _("Answer 2xx as soon as the event is stored, and do the work after that."),
    ),
    base.DNS_ERROR: (
        _("The host's name could not be resolved"),
        _("Check the host in callback_url, and that its DNS record is public."),
    ),
    base.CONNECTION_REFUSED: (
        _("The connection was refused"),
        _("Check that the receiving server runs and listens on the port in callback_url."),
    ),
    base.CONNECTION_ERROR: (
        _("The connection broke"),
        _("Check your firewall and proxy. The addresses that we call from are in status/."),
    ),
    base.TLS_ERROR: (
        _("No secure connection"),
        _(
            "Check that the certificate is valid, names the host in callback_url and comes with "
            "its intermediate certificates, and that the server speaks TLS 1.2 or later."
        ),
    ),
    base.BLOCKED_ADDRESS: (
        _("The address is not allowed"),
        _("Use a callback_url whose host has public addresses only, and a usual port."),
    ),
    base.INVALID_REQUEST: (
        _("The request could not be made"),
        _("Check callback_url, headers and basic_auth for characters that HTTP does not allow."),
    ),
    base.BAD_RESPONSE: (
        _("The answer was no HTTP"),
        _("Check that an HTTP/1.1 server answers on that port, with a complete status line."),
    ),
    base.PROXY_ERROR: (
        _("Our way out failed"),
        _("The service's own proxy failed. It is not your fault, and it will be tried again."),
    ),
    base.INTERNAL_ERROR: (
        _("The service failed"),
        _("It is not your fault, and it will be tried again."),
    ),
    outcome.REDIRECT: (
        _("The endpoint redirects"),
        _("Redirects are not followed. Set callback_url to the address that it leads to."),
    ),
    outcome.CLIENT_ERROR: (
        _("The endpoint refused it (4xx)"),
        _(
            "Check the path in callback_url, that it takes POST without a login or CSRF token, "
            "and that the signature is verified over the raw body."
        ),
    ),
    outcome.GONE: (
        _("The endpoint wants no more (410)"),
        _("The subscription has ended. Subscribe anew when the endpoint is back."),
    ),
    outcome.RATE_LIMITED: (
        _("The endpoint is too busy (429)"),
        _("Set a rate_limit or max_in_flight that it can take, or send Retry-After."),
    ),
    outcome.SERVER_ERROR: (
        _("The endpoint failed (5xx)"),
        _("Look into the receiving server's log at the time of the attempt."),
    ),
}

#: Why a delivery ended, where it was not the error of its last attempt.
ENDINGS: Final[dict[str, tuple[Promise | str, Promise | str]]] = {
    "too_old": (
        _("It had become too old for another try"),
        _("Mend the endpoint, and send it again. How old it may become is the setting MAX_AGE."),
    ),
    "suspended_too_long": (
        _("Its subscription had been suspended for too long"),
        _("Resume the subscription, and replay what is still wanted."),
    ),
    "gone": (
        _("The endpoint wants no more (410)"),
        _("The subscription has ended. Subscribe anew when the endpoint is back."),
    ),
    "unsubscribed": (
        _("Its subscription had ended"),
        _("Subscribe anew, and replay what is wanted there."),
    ),
    "scope_lost": (
        _("Its owner had lost the scope that this event type needs"),
        _("Grant the scope again, and send it again."),
    ),
    "operator": (
        _("An operator cancelled it"),
        _("The history of the delivery says who. Send it again where it is wanted after all."),
    ),
    "suspended": (
        _("Its subscription was suspended, and discards what happens meanwhile"),
        _("Send it again, or let the subscription keep new events while it is suspended."),
    ),
    "resumed": (
        _("Its subscription was resumed without what had waited"),
        _("Send it again, or replay what is wanted."),
    ),
}


def ending(reason: str) -> Remedy:
    """Why a delivery ended, by its ``reason``, and what to do; empty for none and unknown ones."""
    title, fix = ENDINGS.get(reason, REMEDIES.get(reason, ("", "")))
    return Remedy(str(title), str(fix))


def remedy(code: str) -> Remedy:
    """What an error code means, and what to do; empty for none and for an unknown one."""
    title, fix = REMEDIES.get(code, ("", ""))
    return Remedy(str(title), str(fix))
