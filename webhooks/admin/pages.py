"""What all pages over large tables share: nothing that counts, sorts or searches a whole table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from functools import cached_property
from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import quote
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from webhooks.models.fields import first_id_of

#: Lists count no further than this, and show no further.
CAP = 10_000

_ID = re.compile(r"([a-z]{3})_[0-9a-f]{32}")


class CappedPaginator(Paginator):  # type: ignore[type-arg]
    """Counts at most ``CAP`` rows: a full count reads the table."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        return int(rows.order_by()[:CAP].count())


class Recent(admin.SimpleListFilter):
    """The last 24 hours unless another span is asked for, by the ids, which sort by time.

    A search goes over all time: who has an id does not know its day.
    """

    title = _("recorded")
    parameter_name = "since"
    spans = {None: timedelta(hours=24), "7d": timedelta(days=7), "30d": timedelta(days=30)}

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("7d", _("Last 7 days")), ("30d", _("Last 30 days")), ("all", _("Any time"))]

    def choices(self, changelist: Any) -> Iterator[Any]:
        everything = super().choices(changelist)
        yield {**next(everything), "display": _("Last 24 hours")}
        yield from everything

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        if value == "all" or (value is None and request.GET.get("q")):
            return queryset
        span = self.spans.get(value, self.spans[None])
        prefix = queryset.model._meta.pk.prefix
        return queryset.filter(pk__gte=first_id_of(timezone.now() - span, prefix))


class LargeTableAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """A list that costs the same over a thousand rows and over a hundred million."""

    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    paginator = CappedPaginator
    list_per_page = 50
    list_max_show_all = 50
    sortable_by = ()
    ordering = ("-pk",)
    #: What the ids that may be searched for are looked up in, by their prefix.
    search_ids: dict[str, str] = {}
    #: Columns that lists do not read.
    deferred: tuple[str, ...] = ()

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).defer(*self.deferred)

    def get_search_fields(self, request: HttpRequest) -> tuple[str, ...]:
        return tuple(self.search_ids.values())

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        if not term or not self.search_ids:
            return queryset, False
        found = _ID.fullmatch(term)
        if found is None or found[1] not in self.search_ids:
            return queryset.none(), False
        return queryset.filter(**{self.search_ids[found[1]]: term}), False

    def link(self, model: type[Model], pk: str, label: object = None) -> SafeString:
        """A link to the page of a row, which need not exist any more."""
        meta = model._meta
        url = reverse(
            f"admin:{meta.app_label}_{meta.model_name}_change",
            args=[quote(pk)],
            current_app=self.admin_site.name,
        )
        return format_html('<a href="{}">{}</a>', url, label or pk)


class LogAdmin(LargeTableAdmin):
    """A table that is looked at, and never written by hand."""

    actions = None

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
