"""Fields that take a value as it is, or refuse it: JSON has types, and nothing is guessed.

REST framework's own fields turn 5 into "5" and "yes" into true, for the sake of HTML forms; a
mistake of a client's would be stored as something that it did not mean.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext_lazy as _
from rest_framework import serializers

from webhooks.api.ids import is_id

#: What stands in the place of what is never shown again.
MASK = "********"

#: From here on, a time cannot be shown in every time zone.
_LATEST = datetime(9999, 12, 30, tzinfo=UTC)


class Text(serializers.CharField):
    """A text, as it is: nothing is trimmed."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("trim_whitespace", False)
        super().__init__(**options)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class Integer(serializers.IntegerField):
    """A whole number; 5.0 is one, "5" and true are not."""

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not isinstance(data, int | float) or data != data // 1:
            self.fail("invalid")
        return int(data)


class Number(serializers.FloatField):
    """A number, whole or not."""

    def to_internal_value(self, data: Any) -> float:
        if isinstance(data, bool) or not isinstance(data, int | float):
            self.fail("invalid")
        return data


class Flag(serializers.BooleanField):
    """true or false."""

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class Choice(serializers.ChoiceField):
    """One of some texts."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str):
            self.fail("invalid_choice", input=data)
        return super().to_internal_value(data)


class JsonObject(serializers.DictField):
    """A JSON object with any content."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, dict):
            self.fail("not_a_dict", input_type=type(data).__name__)
        return data


class Id(serializers.CharField):
    """An id of one kind."""

    default_error_messages = {"malformed": _("This is no id of the form {prefix}_<32 hex digits>.")}

    def __init__(self, prefix: str, **options: Any) -> None:
        self.prefix = prefix
        super().__init__(**options)

    def to_internal_value(self, data: Any) -> str:
        if not is_id(self.prefix, data):
            self.fail("malformed", prefix=self.prefix)
        text: str = data
        return text


class Moment(serializers.DateTimeField):
    """A time: RFC 3339 with its offset, or unix seconds. Shown in UTC, to the microsecond."""

    default_error_messages = {
        "malformed": _("Give a time such as 2026-01-31T12:00:00Z, or unix seconds."),
    }

    def to_internal_value(self, value: Any) -> datetime:
        try:
            found = _moment(value)
            if found is not None and timezone.is_aware(found):
                found = found.astimezone(UTC)
        except (ValueError, OverflowError, OSError):
            found = None
        # Ids are times as well, and begin in 1970.
        if found is None or timezone.is_naive(found) or found.timestamp() < 0 or found >= _LATEST:
            self.fail("malformed")
        return found

    def to_representation(self, value: Any) -> Any:
        if value is None:
            return None
        return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _moment(value: Any) -> datetime | None:
    if isinstance(value, str):
        if not (value.isascii() and value.replace(".", "", 1).isdigit()):
            return parse_datetime(value.replace(" ", "+"))  # a query's + that was not quoted
    elif isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return datetime.fromtimestamp(float(value), UTC)
