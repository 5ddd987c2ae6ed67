"""What one method of a view takes and answers, declared once.

The views act on the declaration (body, query, status, throttle) and the documentation reads it, so
the two cannot differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from rest_framework.serializers import BaseSerializer

Handler = TypeVar("Handler", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one view.

    answer: serializer class of what a success shows; None: nothing (204).
    body: serializer class of the JSON object that is taken; None: none.
    query: serializer class of the query parameters; None: none are taken.
    status: of a success. page: the answer is a page of many, with ``next`` and ``previous``;
    many: an array of them. throttle: which rate of ``WEBHOOKS["THROTTLES"]`` holds.
    secret: the answer shows a secret, and must not be kept by anybody on the way.
    also: other successes that it may answer, each with its serializer class. problems: statuses
    that it may answer besides those that every operation may.
    """

    answer: type[BaseSerializer[Any]] | None = None
    body: type[BaseSerializer[Any]] | None = None
    query: type[BaseSerializer[Any]] | None = None
    status: int = 200
    page: bool = False
    many: bool = False
    throttle: str = ""
    secret: bool = False
    also: tuple[tuple[int, type[BaseSerializer[Any]]], ...] = ()
    problems: tuple[int, ...] = ()


def operation(**declared: Any) -> Callable[[Handler], Handler]:
    """Declare a method of a view; see :class:`Operation`."""
    made = Operation(**declared)

    def declare(handler: Handler) -> Handler:
        handler.operation = made  # type: ignore[attr-defined]
        return handler

    return declare


def operation_of(view: Any, method: str) -> Operation | None:
    """What was declared for a method of a view or view class; None: it has no such method."""
    name = method.lower()
    if name not in view.http_method_names:  # a client may send the name of any attribute
        return None
    handler = getattr(view, "get" if name == "head" else name, None)
    return getattr(handler, "operation", None)
