"""Which dead letters are meant, and why they are discarded: the forms of their page."""

from __future__ import annotations

from typing import Any, Final

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from webhooks import catalog
from webhooks.bounds import is_storable
from webhooks.models import Subscription
from webhooks.models.dead_letters import Matching
from webhooks.remedies import REMEDIES

#: In the URL, for the reason of those that have none.
NO_REASON: Final = "-"


class FilterForm(forms.Form):
    """Which dead letters are meant; all of it is in the URL."""

    subscription = forms.CharField(
        label=gettext_lazy("Subscription"), required=False, max_length=36
    )
    reason = forms.ChoiceField(label=gettext_lazy("Reason"), required=False)
    type = forms.ChoiceField(label=gettext_lazy("Event type"), required=False)
    start = forms.DateTimeField(label=gettext_lazy("Given up from (UTC)"), required=False)
    end = forms.DateTimeField(label=gettext_lazy("and before (UTC)"), required=False)

    def __init__(self, query: Any) -> None:
        super().__init__(query)
        reasons, types = list(REMEDIES), [entry.name for entry in catalog.all_types()]
        for name, known in (("reason", reasons), ("type", types)):
            given = query.get(name, "")
            # What a release before this one knew may still be on record.
            is_new = given and given not in known and is_storable(given)
            extra = [given] if is_new else []
            field: Any = self.fields[name]
            field.choices = [("", _("any")), *((each, each) for each in [*known, *extra])]
        for name in ("start", "end"):
            self.fields[name].widget = forms.DateTimeInput(
                attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"
            )

    def clean_subscription(self) -> str:
        text = str(self.cleaned_data["subscription"]).strip()
        field: Any = Subscription._meta.pk
        try:
            return str(field.to_python(text)) if text else ""
        except ValidationError:
            raise ValidationError(_("A subscription's id: sub_…")) from None

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        start, end = cleaned.get("start"), cleaned.get("end")
        if start and end and start >= end:
            self.add_error("end", _("It must be later than the start."))
        return cleaned

    @property
    def matching(self) -> Matching:
        """What a valid form asks for."""
        given = self.cleaned_data
        reason = {"": None, NO_REASON: ""}.get(given["reason"], given["reason"])
        types = (given["type"],) if given["type"] else ()
        return Matching(given["subscription"], reason, types, given["start"], given["end"])

    @property
    def query(self) -> dict[str, str]:
        """What was asked for, as it stands in the URL."""
        return {name: self.data[name] for name in self.fields if self.data.get(name)}


class NoteForm(forms.Form):
    """Why something is discarded; kept in the history."""

    note = forms.CharField(
        label=gettext_lazy("Why"), max_length=255, help_text=gettext_lazy("Kept in the history.")
    )
