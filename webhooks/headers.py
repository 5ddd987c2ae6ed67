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
from typing import TYPE_CHECKING, Any, Final

from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _

from webhooks.crypto import Sealed, seal
from webhooks.exceptions import SecretUnreadable

if TYPE_CHECKING:
    from webhooks.models import Subscription

MAX_HEADERS: Final = 20
MAX_NAME: Final = 64
MAX_VALUE: Final = 1024
MAX_BASIC_AUTH: Final = 512

NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, token
VALUE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
BASIC_AUTH: Final = re.compile(r"[\x20-\x7e]*")

#: Headers that belong to the connection, the body, or to whom the receiver trusts.
DENIED: Final = frozenset(
    {
        *("host", "content-length", "content-type", "content-encoding", "transfer-encoding"),
        *("te", "trailer", "connection", "keep-alive", "upgrade", "expect"),
        *("cookie", "set-cookie", "forwarded", "x-real-ip", "via"),
        *("metadata", "metadata-flavor", "x-metadata-token"),
        # The transport sets it itself: what is not decompressed cannot grow.
        "accept-encoding",
    }
)
DENIED_PREFIXES: Final = (
    *("proxy-", "x-forwarded-", "sec-"),
    *("webhook-", "svix-", "ce-", "x-hook-", "x-mandrill-"),
    "x-aws-ec2-metadata-token",
)


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
        elif basic_auth and name.lower() == "authorization":
            faults.append(_("Authorization comes from basic_auth. Set one of the two."))
    if faults:
        raise ValidationError(faults)


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


def seal_headers(headers: Mapping[str, str]) -> Sealed:
    """Headers as the column holds them: sealed JSON text; the empty one for none."""
    return Sealed(seal(json.dumps(dict(headers))) if headers else "")


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
            "Stored headers are no JSON object of texts. Set the subscription's headers again."
        )
    return headers


def headers_of(subscription: Subscription) -> dict[str, str]:
    """What a subscription adds to each of its POSTs, basic auth included. Raises SecretUnreadable.

    Join it with the headers of the POST by :func:`combined`.
    """
    headers = open_headers(subscription.headers)
    stored = subscription.basic_auth
    basic_auth = stored.reveal() if isinstance(stored, Sealed) else stored
    if basic_auth:
        encoded = base64.b64encode(basic_auth.encode()).decode("ascii")
        headers = combined(headers, {"Authorization": f"Basic {encoded}"})
    return headers


def combined(custom: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """Both kinds of headers together. ``own`` wins, however the custom ones spell a name."""
    names = {name.lower() for name in own}
    return {name: value for name, value in custom.items() if name.lower() not in names} | dict(own)


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
    lower = name.lower()
    if lower in DENIED or lower.startswith(DENIED_PREFIXES):
        return _("%(name)s is set by the service, or by servers on the way: choose another.") % {
            "name": name
        }
    if lower in seen:
        return _("%(name)s is there twice: case makes no difference.") % {"name": name}
    seen.add(lower)
    return ""


def _value_fault(name: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_VALUE or not VALUE.fullmatch(value):
        return _(
            "The value of %(name)s is no text of 1 to %(limit)d visible ASCII characters, with "
            "spaces only between them."
        ) % {"name": name, "limit": MAX_VALUE}
    return ""
