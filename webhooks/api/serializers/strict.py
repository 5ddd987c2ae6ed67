"""Serializers that refuse what they do not know, and name what was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Final

from django.http import QueryDict
from django.utils.translation import gettext as _
from rest_framework import serializers

from webhooks.api.pagination import DEFAULT_LIMIT, MAX_LIMIT
from webhooks.api.serializers.fields import Text

#: So many wrong names are told of at once.
NAMED: Final = 20


class StrictSerializer(serializers.Serializer[Any]):
    """The JSON object of a request; a name that it does not have is an error."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            fields = self.fields
            writable = [name for name, field in fields.items() if not field.read_only]
            errors = {}
            for name in data:
                if name not in fields:
                    errors[_shown(name)] = [unknown(name, writable)]
                elif fields[name].read_only:
                    errors[name] = [_("This is set by the service. Leave it out.")]
                if len(errors) == NAMED:
                    break  # thousands of names would cost seconds, and an answer of megabytes
            if errors:
                raise serializers.ValidationError(errors)
        return super().to_internal_value(data)


class QuerySerializer(StrictSerializer):
    """The parameters of a query; each may be given once."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, QueryDict):
            repeated = [name for name, values in data.lists() if len(values) > 1]
            if repeated:
                raise serializers.ValidationError(
                    {_shown(name): [_("Give this once.")] for name in repeated}
                )
            wrong = [name for name, text in data.items() if "\0" in f"{name}{text}"]
            if wrong:
                raise serializers.ValidationError(
                    {_shown(name): [_("U+0000 is not allowed.")] for name in wrong}
                )
            data = data.dict()
        return super().to_internal_value(data)


class NoParameters(QuerySerializer):
    """No parameters at all."""


class NoBody(StrictSerializer):
    """An empty object, or no body."""


class Limit(serializers.IntegerField):
    """How many rows a page has, as text of a query."""

    def to_internal_value(self, data: Any) -> int:
        if not (isinstance(data, str) and data.isascii() and data.isdigit()):
            self.fail("invalid")
        return super().to_internal_value(data)


class PageQuery(QuerySerializer):
    """The parameters of every list."""

    cursor = Text(
        required=False, max_length=512, help_text="Where the page begins: from “next”, “previous”."
    )
    limit = Limit(
        required=False,
        min_value=1,
        max_value=MAX_LIMIT,
        help_text=f"Rows of a page; {DEFAULT_LIMIT} where none is given.",
    )


def unknown(name: Any, known: list[str]) -> str:
    """What is said of a name that is not known."""
    near = difflib.get_close_matches(str(name)[:64], known, n=1, cutoff=0.5)
    if near:
        return _("There is no such field. Did you mean “%(near)s”?") % {"near": near[0]}
    if not known:
        return _("There is no such field; none is taken here.")
    return _("There is no such field. Known: %(known)s.") % {"known": ", ".join(known)}


def _shown(name: Any) -> str:
    return str(name)[:64]
