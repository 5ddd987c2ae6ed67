"""The one form of bodies: a small, well-formed JSON document (RFC 8259), judged before it is used.

Written by strangers, so everything has a bound: 64 KiB, 20 levels, and none of what JSON parsers
disagree on (repeated keys, NaN, numbers beyond a float, NUL, lone surrogates).
"""

from __future__ import annotations

import json
import math
import re
from typing import IO, Any, NoReturn

from django.utils.translation import gettext as _
from rest_framework.exceptions import ParseError, UnsupportedMediaType
from rest_framework.parsers import BaseParser

from webhooks.api.problems import PayloadTooLarge

MAX_BYTES = 64 * 1024
MAX_DEPTH = 20

# A string, whole or cut off by the end of the text, or a bracket. It cannot fail inside a string,
# so its time grows with the text and no faster.
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)

_LENGTH = re.compile(r"[0-9]{1,18}")


def check_framing(request: Any) -> None:
    """Refuse a request whose body would be left unread, or read as something else than it is.

    A body without a length (chunked) is no body to REST framework: what the client asks for would
    be ignored without a word. Raises ParseError for it, and UnsupportedMediaType for what is
    compressed, or in another charset than UTF-8.
    """
    meta = request.META
    length = meta.get("CONTENT_LENGTH") or ""
    if not _LENGTH.fullmatch(length) and (length or meta.get("HTTP_TRANSFER_ENCODING")):
        raise ParseError(
            _("The body has no usable Content-Length. Send it whole, with its length.")
        )
    coding = meta.get("HTTP_CONTENT_ENCODING", "").strip().lower()
    if coding not in ("", "identity"):
        raise UnsupportedMediaType(coding, _("The body is compressed. Send it as it is."))
    charset = request.content_params.get("charset", "utf-8").strip("\"'").lower()
    if charset not in ("utf-8", "utf8"):
        raise UnsupportedMediaType(charset, _("JSON is UTF-8. Send no other charset."))


class StrictJSONParser(BaseParser):
    """``application/json``, of at most ``MAX_BYTES``."""

    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: Any = None, parser_context: Any = None
    ) -> dict[str, Any]:
        """The object in the body. Raises ParseError and PayloadTooLarge."""
        request = (parser_context or {}).get("request")
        if request is not None and _announced(request) > MAX_BYTES:
            raise PayloadTooLarge
        raw = stream.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise PayloadTooLarge
        document = read(raw)
        if not isinstance(document, dict):
            raise ParseError(_("The body must be a JSON object."))
        return document


def _announced(request: Any) -> int:
    try:
        return int(request.META.get("CONTENT_LENGTH") or 0)
    except ValueError:
        return 0


def read(raw: bytes) -> Any:
    """The value of a JSON document. Raises ParseError, which says what is wrong."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise ParseError(_("The body is not UTF-8.")) from None
    _check_depth(text)
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_float=_number,
            parse_int=_integer,
        )
    except ValueError as error:
        raise ParseError(
            _("The body is not JSON: %(error)s") % {"error": str(error)[:200]}
        ) from None
    if "\\u" in text:  # only an escape can bring in what is neither UTF-8 nor allowed in JSON
        _check_texts(value)
    return value


def _check_depth(text: str) -> None:
    # Before the parser, which would call itself for each level.
    depth = 0
    for token in _TOKEN.finditer(text):
        first = text[token.start()]
        if first in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise ParseError(
                    _("The body is nested more than %(depth)d levels deep.") % {"depth": MAX_DEPTH}
                )
        elif first in "]}":
            depth -= 1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ParseError(
                _("The body has the name %(name)s twice in one object.")
                % {"name": ascii(name[:64])}
            )
        found[name] = value
    return found


def _constant(name: str) -> NoReturn:
    raise ParseError(_("%(name)s is no JSON number.") % {"name": name})


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ParseError(_("The number %(text)s is too large.") % {"text": text[:64]})
    return value


def _integer(text: str) -> int:
    _number(text)  # before Python's own limit, which a host may lift: int() takes quadratic time
    return int(text)


def _check_texts(value: Any) -> None:
    if isinstance(value, dict):
        for name, each in value.items():
            _check_texts(name)
            _check_texts(each)
    elif isinstance(value, list):
        for each in value:
            _check_texts(each)
    elif isinstance(value, str):
        if "\0" in value:
            raise ParseError(_("The body holds the character U+0000, which cannot be stored."))
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ParseError(
                _("The body holds half of a surrogate pair, which is no character.")
            ) from None
