"""The errors of the API as OpenAPI knows them: one schema, and one response for each status."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from webhooks.api.problems import MEDIA_TYPE

#: Names of the responses. Not HTTPStatus's own phrases, which change with Python's version.
_NAMES: Final[dict[int, str]] = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    406: "NotAcceptable",
    409: "Conflict",
    413: "ContentTooLarge",
    415: "UnsupportedMediaType",
    429: "TooManyRequests",
    501: "NotImplemented",
}

#: What each status means, wherever it occurs.
MEANINGS: Final[dict[int, str]] = {
    400: "Something in the request is not acceptable; `errors` names each field. Nothing was done.",
    401: "There is no access token, or none that is valid. Get a new one.",
    403: "The access token lacks the scope that this takes.",
    404: "There is nothing here that the client may see: unknown and foreign ids answer alike.",
    406: "The answer cannot be given in the form that `Accept` asks for.",
    409: "The request is well-formed, and not possible as things stand.",
    413: "The body is larger than 64 KiB.",
    415: "The body is not `application/json`.",
    429: "Too many requests of this kind. Wait as long as `Retry-After` says.",
    501: "The service has not installed what describes its API.",
}

SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "description": "An error, as RFC 9457 describes it.",
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string", "description": "The status in words."},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "What is wrong, why, and what to do."},
        "errors": {
            "type": "object",
            "description": "By field (dotted, where it is nested): what is wrong with it.",
            "additionalProperties": {"type": "array", "items": {"type": "string"}},
        },
    },
    "required": ["type", "title", "status", "detail"],
}

_HEADERS: Final[dict[int, dict[str, Any]]] = {
    401: {
        "WWW-Authenticate": {
            "description": "How to authenticate.",
            "schema": {"type": "string"},
        }
    },
    429: {
        "Retry-After": {
            "description": "Seconds to wait.",
            "required": True,
            "schema": {"type": "integer", "minimum": 1},
        }
    },
}


def reference(status: int) -> dict[str, str]:
    """What stands in an operation for the answer of this status."""
    return {"$ref": f"#/components/responses/{_NAMES[status]}"}


def responses() -> dict[str, Any]:
    """The responses, by their names among the components."""
    return {_NAMES[status]: _response(status) for status in MEANINGS}


def _response(status: int) -> dict[str, Any]:
    example: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": MEANINGS[status].replace("`", ""),
    }
    if status == HTTPStatus.BAD_REQUEST:
        example["detail"] = "Not acceptable: event_types."
        example["errors"] = {"event_types": ["'order.payed' is not registered."]}
    response: dict[str, Any] = {
        "description": MEANINGS[status],
        "content": {
            MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}
        },
    }
    if status in _HEADERS:
        response["headers"] = _HEADERS[status]
    return response
