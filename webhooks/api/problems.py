"""Errors as the API answers them: ``application/problem+json`` (RFC 9457), all in one place.

``{type, title, status, detail, errors}``; ``errors`` maps the names of fields to messages and is
there where single fields are at fault.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from django.core.exceptions import (
    NON_FIELD_ERRORS,
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
)
from django.core.exceptions import ValidationError as ModelValidationError
from django.core.signals import got_request_exception
from django.http import Http404, UnreadablePostError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.settings import api_settings

from webhooks.crypto import KeysUnusable
from webhooks.exceptions import (
    HeldByOperator,
    IllegalStatusChange,
    InvalidSecret,
    NotDeliverable,
    SecretUnreadable,
)

MEDIA_TYPE = "application/problem+json"

#: The same for what is not there and for what belongs to somebody else.
NOT_FOUND = gettext_lazy("There is nothing here that you may see. Paths end with a slash.")

#: Fields that name event types.
_TYPES = ("event_types", "types")

logger = logging.getLogger(__name__)

#: A problem with a field: its name, and what is wrong with it.
Errors = dict[str, list[str]]


class PayloadTooLarge(exceptions.APIException):
    """The body is larger than the parser takes."""

    status_code = 413
    default_detail = gettext_lazy("The body is larger than 64 KiB.")
    default_code = "too_large"


class Conflict(exceptions.APIException):
    """What is asked for is well-formed, and not possible as things stand."""

    status_code = 409
    default_code = "conflict"


class Unavailable(exceptions.APIException):
    """The operator has to put something right first."""

    status_code = 503
    default_detail = gettext_lazy(
        "The service cannot store or use secrets at the moment. It has been noted; try again later."
    )
    default_code = "unavailable"


def handle(error: Exception, context: Mapping[str, Any]) -> Response:
    """The answer to an error of a view; every error has one, the unexpected ones too."""
    known = _known(error)
    if known is None:
        return _unexpected(error, context)
    headers = {}
    if challenge := getattr(known, "auth_header", None):
        headers["WWW-Authenticate"] = challenge
    if wait := getattr(known, "wait", None):
        headers["Retry-After"] = str(math.ceil(wait))
    detail, errors = _told(known)
    return _response(known.status_code, detail, errors, headers)


def _known(error: Exception) -> exceptions.APIException | None:
    """The error as REST framework would have raised it; None: nobody expected it."""
    if isinstance(error, exceptions.APIException):
        return error
    if isinstance(error, Http404):
        return exceptions.NotFound()
    if isinstance(error, PermissionDenied):
        return exceptions.PermissionDenied()
    if isinstance(error, ModelValidationError):
        return exceptions.ValidationError(_by_field(error))
    if isinstance(error, InvalidSecret):
        return exceptions.ValidationError({"secret": [str(error)]})
    if isinstance(error, HeldByOperator | NotDeliverable):
        return Conflict(str(error))
    if isinstance(error, KeysUnusable):
        # Told without a traceback: it says what is missing, and where.
        logger.error("Secrets can be neither stored nor used: %s", error)
        return Unavailable()
    if isinstance(error, SecretUnreadable):
        return Conflict(_("The stored secrets cannot be read. Rotate the secret, set the headers."))
    if isinstance(error, IllegalStatusChange):
        return exceptions.ValidationError({"status": [str(error)]})
    if isinstance(error, RequestDataTooBig):
        return PayloadTooLarge()
    if isinstance(error, SuspiciousOperation | UnreadablePostError):
        return exceptions.ParseError()
    return None


def _by_field(error: ModelValidationError) -> dict[str, list[str]]:
    if hasattr(error, "error_dict"):
        return {
            api_settings.NON_FIELD_ERRORS_KEY if name == NON_FIELD_ERRORS else name: messages
            for name, messages in error.message_dict.items()
        }
    return {api_settings.NON_FIELD_ERRORS_KEY: error.messages}


def _told(error: exceptions.APIException) -> tuple[str, Errors]:
    """The sentence and the fields of an error."""
    if error.status_code == HTTPStatus.NOT_FOUND:
        return str(NOT_FOUND), {}
    if not isinstance(error.detail, list | dict):
        return str(error.detail), {}
    errors = _flat(error.detail)
    for name in set(errors) & set(_TYPES):
        errors[name] = [_where_to_look(message) for message in errors[name]]
    general = errors.pop("", [])
    if errors:
        at_fault = _("Not acceptable: %(names)s.") % {"names": ", ".join(errors)}
        general.append(at_fault)
    return " ".join(general), errors


def _flat(detail: Any, name: str = "") -> Errors:
    """Nested errors by dotted name; those of no field under ""."""
    if isinstance(detail, Mapping):
        found: Errors = {}
        for key, each in detail.items():
            own = "" if key == api_settings.NON_FIELD_ERRORS_KEY else str(key)
            for inner, messages in _flat(each, ".".join(filter(None, (name, own)))).items():
                found.setdefault(inner, []).extend(messages)
        return found
    if isinstance(detail, list | tuple):
        found = {}
        for each in detail:
            for inner, messages in _flat(each, name).items():
                found.setdefault(inner, []).extend(messages)
        return found
    return {name: [str(detail)]}


def _where_to_look(message: str) -> str:
    """What is wrong with an event type; where no near one is named, with a way to find one."""
    if not message.endswith("is not registered."):
        return message
    return f"{message} {_('GET event-types/ shows which ones there are.')}"


def _unexpected(error: Exception, context: Mapping[str, Any]) -> Response:
    request = context["request"]
    logger.error(
        "Unexpected error at %s %s",
        *(text.encode("unicode_escape").decode() for text in (request.method, request.path)),
        exc_info=error,
    )
    # What listens for errors of views (error reporting, Django's test client) hears of it.
    got_request_exception.send(sender=type(context["view"]), request=request._request)
    detail = _("The service failed. It has been noted; try again later.")
    return _response(HTTPStatus.INTERNAL_SERVER_ERROR, detail, {}, {})


def _response(status: int, detail: str, errors: Errors, headers: dict[str, str]) -> Response:
    problem: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": int(status),
        "detail": detail,
    }
    if errors:
        problem["errors"] = errors
    return Response(problem, status=status, headers=headers, content_type=MEDIA_TYPE)
