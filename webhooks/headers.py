"""Request headers and basic auth of a subscription's own: what may be set, and what is sent.

Values are secrets: they are sealed at rest, opened by whoever sends, and repeated in no error. What
the service itself sets always wins, so that a subscriber can neither forge a signature nor speak to
an inner service in somebody else's name.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, quote_plus

from django.core.exceptions import ValidationError
from django.utils.html import escape
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_variables

from webhooks.crypto import KeysUnusable, Sealed, seal
from webhooks.exceptions import SecretUnreadable

if TYPE_CHECKING:
    from webhooks.models import Subscription

MAX_HEADERS: Final = 20
MAX_NAME: Final = 64
MAX_VALUE: Final = 1024
MAX_BASIC_AUTH: Final = 512

#: What stands for a secret in a receiver's answer, and how long one is at least to be replaced.
MASK: Final = "********"
MIN_MASKED: Final = 8

NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, token
VALUE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
NO_LETTER: Final = re.compile(r"[^0-9a-z]")
BASIC_AUTH: Final = re.compile(r"[\x20-\x7e]*")

#: Headers that belong to the connection, the body, or to whom the receiver trusts; as they are read
#: (:func:`as_read`).
DENIED: Final = frozenset(
    {
        *("host", "content-length", "content-type", "content-encoding", "transfer-encoding"),
        *("te", "trailer", "connection", "keep-alive", "upgrade", "expect"),
        *("cookie", "set-cookie", "forwarded", "x-real-ip", "via"),
        *("metadata", "metadata-flavor", "x-metadata-token", "x-google-metadata-request"),
        # By which a service behind a trusting proxy would take our POST for another one.
        *("x-forwarded", "x-client-ip", "true-client-ip", "cf-connecting-ip", "remote-user"),
        *("x-original-url", "x-original-host", "x-rewrite-url", "x-host", "x-remote-user"),
        *("x-http-method-override", "x-http-method", "x-method-override", "max-forwards"),
        *("http2-settings", "alt-used", "content-range", "date"),
        # The transport sets it itself: what is not decompressed cannot grow.
        "accept-encoding",
    }
)
DENIED_PREFIXES: Final = (
    *("proxy-", "x-forwarded-", "sec-"),
    *("webhook-", "svix-", "ce-", "x-hook-", "x-mandrill-"),
    "x-aws-ec2-metadata-token",
)


@sensitive_variables()
def check_headers(headers: Any, *, basic_auth: bool = False) -> None:
    """Refuse custom headers that may not, or cannot, be sent.

    headers: name -> value. basic_auth: the subscription has basic auth, which sets Authorization.
    Raises ValidationError with a message for each fault; names are repeated, values never.
    """
    if not isinstance(headers, Mapping):
        raise ValidationError(_('Headers are an object of names and texts, e.g. {"X-Token": "…"}.'))
    if len(headers) > MAX_HEADERS:
        raise ValidationError(
            _("At most %(limit)d headers; these are %(count)d.")
            % {"limit": MAX_HEADERS, "count": len(headers)}
        )
    faults = []
    seen: set[str] = set()
    for name, value in headers.items():
        if fault := _name_fault(name, seen) or _value_fault(name, value):
            faults.append(fault)
        elif basic_auth and as_read(name) == "authorization":
            faults.append(_("Authorization comes from basic_auth. Set one of the two."))
    if faults:
        raise ValidationError(faults)


@sensitive_variables()
def check_basic_auth(text: Any) -> None:
    """Refuse what cannot be sent as basic auth (RFC 7617): ``user:password``, visible ASCII.

    Raises ValidationError, which never repeats the text.
    """
    if not isinstance(text, str) or ":" not in text:
        raise ValidationError(_("Basic auth is a text of the form user:password."))
    if len(text) > MAX_BASIC_AUTH or not BASIC_AUTH.fullmatch(text):
        raise ValidationError(
            _("Basic auth is at most %(limit)d characters of visible ASCII.")
            % {"limit": MAX_BASIC_AUTH}
        )


@sensitive_variables()
def seal_headers(headers: Mapping[str, str]) -> Sealed:
    """Headers as the column holds them: sealed JSON text; the empty one for none."""
    return Sealed(seal(json.dumps(dict(headers))) if headers else "")


@sensitive_variables()
def open_headers(sealed: Sealed | str) -> dict[str, str]:
    """The headers in a column's value. Raises SecretUnreadable for what is not ours to read."""
    text = sealed.reveal() if isinstance(sealed, Sealed) else sealed
    if not text:
        return {}
    try:
        headers = json.loads(text)
    except ValueError:
        headers = None
    if not isinstance(headers, dict) or not all(isinstance(each, str) for each in headers.values()):
        raise SecretUnreadable(
            _("Stored headers are no JSON object of texts. Set the subscription's headers again.")
        )
    return headers


@sensitive_variables()
def headers_of(subscription: Subscription) -> dict[str, str]:
    """What a subscription adds to each of its POSTs, basic auth included. Raises SecretUnreadable.

    Join it with the headers of the POST by :func:`combined`.
    """
    headers = open_headers(subscription.headers)
    stored = subscription.basic_auth
    basic_auth = stored.reveal() if isinstance(stored, Sealed) else stored
    if basic_auth:
        if ":" not in basic_auth:  # stored past the checks, by a loaddata of what was masked, say
            raise SecretUnreadable(
                _("Stored basic auth has no colon. Set the subscription's basic_auth again.")
            )
        encoded = base64.b64encode(basic_auth.encode()).decode("ascii")
        headers = combined(headers, {"Authorization": f"Basic {encoded}"})
    return headers


@sensitive_variables()
def signed_url(subscription: Subscription) -> str:
    """The callback URL as formats sign it that sign one: with ``user:password@``, as it was given,
    before the host where the subscription has basic auth. Raises SecretUnreadable.
    """
    stored = subscription.basic_auth
    basic_auth = stored.reveal() if isinstance(stored, Sealed) else stored
    if not basic_auth:
        return subscription.callback_url
    scheme, separator, rest = subscription.callback_url.partition("://")
    return f"{scheme}{separator}{basic_auth}@{rest}"


@sensitive_variables()
def combined(custom: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """Both kinds of headers together. ``own`` wins, however the custom ones spell a name."""
    if not custom:
        return dict(own)
    names = {as_read(name) for name in own}
    return {name: value for name, value in custom.items() if as_read(name) not in names} | dict(own)


def as_read(name: str) -> str:
    """The name that the receiver's application may take this one for.

    CGI (RFC 3875), and WSGI after it, hand ``X-Real-IP`` on as ``HTTP_X_REAL_IP``, and many servers
    write every character that is no letter or digit as ``_``: ``X_Real_IP`` and ``X.Real.IP`` are
    the same header there.
    """
    return NO_LETTER.sub("-", name.lower())


@sensitive_variables()
def masked(text: str, sent: Mapping[str, str]) -> str:
    """What a receiver answered, without what it repeats of a subscriber's own headers.

    Debugging endpoints answer with the request that came, and answers are stored and shown. Texts
    of fewer than ``MIN_MASKED`` characters stay: they stand in any answer.
    """
    if len(text) < MIN_MASKED:
        return text
    for name, value in sent.items():
        if not _is_denied(as_read(name)):
            for form in _forms(value):
                text = _without(text, form)
    return text


def _forms(value: str) -> list[str]:
    """A header's value as it is sent and as pages and programs repeat it; the longest first.

    Whole, without its scheme (``Bearer``), and what basic authentication says; each also as it
    stands in JSON, in a URL and in HTML.
    """
    forms = {value, json.dumps(value)[1:-1]}
    scheme, _space, credentials = value.partition(" ")
    forms.add(credentials)
    if scheme.lower() == "basic":
        with suppress(ValueError):
            pair = base64.b64decode(credentials, validate=True).decode()
            forms |= {pair, pair.partition(":")[2]}
    for form in list(forms):
        forms |= {quote(form, safe=""), quote_plus(form), escape(form), form.replace("/", "\\/")}
    return sorted((form for form in forms if len(form) >= MIN_MASKED), key=len, reverse=True)


def _without(text: str, form: str) -> str:
    text = text.replace(form, MASK)
    # An excerpt may end in the middle of it.
    for length in range(min(len(form), len(text)), MIN_MASKED - 1, -1):
        if text.endswith(form[:length]):
            return text[:-length] + MASK
    return text


@sensitive_variables()
def clean_headers(subscription: Subscription) -> dict[str, list[ValidationError]]:
    """Check and seal what is still plain in a subscription's two fields; the faults, by field.

    Plain is what a caller has just set: a mapping, and ``user:password``; None and "" mean none.
    What is sealed already is left as it is, so a subscription that is saved again keeps it.
    """
    faults: dict[str, list[ValidationError]] = {}
    headers: Any = subscription.headers or ""
    basic_auth: Any = subscription.basic_auth or ""
    try:
        if isinstance(basic_auth, Sealed):
            pass
        elif basic_auth:
            check_basic_auth(basic_auth)
            if isinstance(headers, Sealed):
                check_headers(_stored(headers), basic_auth=True)
            subscription.basic_auth = Sealed(seal(basic_auth))
        else:
            subscription.basic_auth = ""
    except ValidationError as error:
        faults["basic_auth"] = error.error_list
    try:
        if isinstance(headers, Sealed):
            pass
        elif headers:
            check_headers(headers, basic_auth=bool(basic_auth))
            subscription.headers = seal_headers(headers)
        else:
            subscription.headers = ""
    except ValidationError as error:
        faults["headers"] = error.error_list
    return faults


def _stored(sealed: Sealed) -> dict[str, str]:
    try:
        return open_headers(sealed)
    except KeysUnusable:
        raise  # not the client's to mend
    except SecretUnreadable:
        raise ValidationError(
            _("The stored headers cannot be read. Set them again, together with basic_auth.")
        ) from None


def _name_fault(name: Any, seen: set[str]) -> str:
    if not isinstance(name, str) or len(name) > MAX_NAME or not NAME.fullmatch(name):
        shown = str(name)[:MAX_NAME]
        return _(
            "%(name)r is no header name: at most %(limit)d letters, digits and !#$%%&'*+-.^_`|~."
        ) % {"name": shown, "limit": MAX_NAME}
    read = as_read(name)
    if _is_denied(read):
        return _("%(name)s is set by the service, or by servers on the way: choose another.") % {
            "name": name
        }
    if read in seen:
        return _("%(name)s is there twice: case makes no difference, nor does _ for -.") % {
            "name": name
        }
    seen.add(read)
    return ""


def _is_denied(read: str) -> bool:
    return read in DENIED or read.startswith(DENIED_PREFIXES)


def _value_fault(name: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_VALUE or not VALUE.fullmatch(value):
        return _(
            "The value of %(name)s is no text of 1 to %(limit)d visible ASCII characters, with "
            "spaces only between them."
        ) % {"name": name, "limit": MAX_VALUE}
    return ""
