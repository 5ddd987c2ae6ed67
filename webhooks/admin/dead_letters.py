"""The page “Dead letters”: what was given up, by subscription and reason, and what can be done.

Nothing is done here: :mod:`webhooks.dead_letters` retries and discards. Some rows are done at once;
all that match, by a worker, and a page shows how far it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC
from typing import Any, Final

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from webhooks import dead_letters, health
from webhooks.admin.dead_letter_forms import NO_REASON, FilterForm, NoteForm
from webhooks.admin.exports import TYPES, streamed
from webhooks.admin.views import Question, SitePageAdmin, actor, is_allowed, posted
from webhooks.api.ids import is_id
from webhooks.bounds import is_storable
from webhooks.conf import settings
from webhooks.models import DeadLetter, DeadLetterRun, Delivery, Event, Subscription
from webhooks.models.dead_letters import Matching, Place
from webhooks.remedies import remedy
from webhooks.templatetags.webhooks_admin import number

RETRY, DISCARD = "replay_delivery", "discard_deadletter"
PERMISSIONS: Final = {
    DeadLetterRun.Action.RETRY.value: RETRY,
    DeadLetterRun.Action.DISCARD.value: DISCARD,
}
#: Groups and rows on one page; runs in the list of those that were.
GROUPS, LISTED, RUNS_LISTED = 20, 50, 5
#: Groups that are looked at for one page.
LEAPS: Final = 1000
#: The columns of an export; the last one with the permission to see payloads alone.
COLUMNS: Final = (
    *("delivery", "event", "event_type", "subscription", "requester", "endpoint"),
    *("reason", "attempts", "recorded_at", "given_up_at", "payload"),
)


@admin.register(DeadLetter)
class DeadLetterAdmin(SitePageAdmin):
    def get_urls(self) -> list[URLPattern]:
        one = "runs/<str:run_id>/"
        retry, discard = PERMISSIONS
        return [
            self.site_route("retry/", self._all(retry), "retry", permission=RETRY),
            self.site_route("discard/", self._all(discard), "discard", permission=DISCARD),
            self.site_route("retry/selected/", self.retry_view, "retry_selected", permission=RETRY),
            self.site_route(
                "discard/selected/", self.discard_view, "discard_selected", permission=DISCARD
            ),
            self.site_route("export/<str:form>/", self.export_view, "export"),
            self.site_route(one, self.run_view, "run"),
            self.site_route(f"{one}cancel/", self.cancel_view, "run_cancel", post=True),
            *super().get_urls(),
        ]

    # The page

    def page(self, request: HttpRequest) -> HttpResponse:
        with timezone.override(UTC):  # as the form says
            answer: HttpResponse = self._page(request).render()
            return answer

    def _page(self, request: HttpRequest) -> Any:
        form = FilterForm(request.GET)
        shown: dict[str, Any] = {"form": form, "actions": self.actions_for(request, form)}
        if form.is_valid():
            which = form.matching
            one = bool(which.subscription_id) and which.reason is not None
            shown |= self.rows(request, form) if one else self.groups(request, form)
        runs = DeadLetterRun.objects.using(settings.database).order_by("-pk")[:RUNS_LISTED]
        shown["runs"] = [(each, self.site_url("run", run_id=each.pk)) for each in runs]
        return self.render(
            request, "admin/webhooks/dead_letters/page.html", _("Dead letters"), **shown
        )

    def groups(self, request: HttpRequest, form: FilterForm) -> dict[str, Any]:
        """By subscription and reason, those with the most first; of so many groups at a time."""
        whose, _tilde, reason = request.GET.get("after", "").partition("~")
        after = (whose, reason) if is_id("sub", whose) and is_storable(reason) else None
        dead = DeadLetter.objects.using(settings.database)
        found, more = dead.groups(
            form.matching,
            after=after,
            limit=GROUPS,
            leaps=LEAPS,
            most=health.MOST_COUNTED,
        )
        lines = [
            {
                "group": each,
                "remedy": remedy(each.reason),
                "url": self.site_url(
                    query=form.query
                    | {"subscription": each.subscription.pk, "reason": each.reason or NO_REASON}
                ),
                "subscription_url": self.change_url(request, Subscription, each.subscription.pk),
            }
            for each in sorted(found, key=lambda each: (-each.count, each.reason))
        ]
        next_query = form.query | {"after": "~".join(more)} if more else None
        return {
            "groups": lines,
            "next": self.site_url(query=next_query) if next_query else "",
            "first": self.site_url(query=form.query) if "after" in request.GET else "",
        }

    def rows(self, request: HttpRequest, form: FilterForm) -> dict[str, Any]:
        """One group's, the newest first."""
        which = form.matching
        found, more = DeadLetter.objects.using(settings.database).newest(
            which,
            before=_place(request.GET.get("before", ""), which),
            limit=LISTED,
            looked_through=dead_letters.LOOKED_THROUGH,
        )
        known = Subscription.objects.using(settings.database).defer("headers", "basic_auth")
        next_query = (
            form.query | {"before": f"{more.settled_at.isoformat()}~{more.pk}"} if more else None
        )
        return {
            "subscription": known.filter(pk=which.subscription_id).first(),
            "subscription_url": self.change_url(request, Subscription, which.subscription_id),
            "reason": which.reason,
            "remedy": remedy(which.reason or ""),
            "rows": [
                (
                    each,
                    self.change_url(request, Delivery, each.pk),
                    self.change_url(request, Event, each.event_id),
                )
                for each in found
            ],
            "up": self.site_url(
                query={k: v for k, v in form.query.items() if k not in ("subscription", "reason")}
            ),
            "next": self.site_url(query=next_query) if next_query else "",
            "first": self.site_url(query=form.query) if "before" in request.GET else "",
        }

    def actions_for(self, request: HttpRequest, form: FilterForm) -> dict[str, str]:
        """The addresses of what this user may do with all that match; "" for anything else."""
        if not form.is_valid():
            return {}
        found = {form_: self.site_url("export", form.query, form=form_) for form_ in TYPES}
        for name, permission in (("retry", RETRY), ("discard", DISCARD)):
            allowed = is_allowed(request, permission)
            selected = f"{name}_selected"
            found[name] = self.site_url(name, form.query) if allowed else ""
            found[selected] = self.site_url(selected) if allowed else ""
        return found

    # All that match

    def _all(self, action: str) -> Callable[[HttpRequest], HttpResponse]:
        def view(request: HttpRequest) -> HttpResponse:
            with timezone.override(UTC):
                answer: HttpResponse = self._all_view(request, action)
                return answer.render() if isinstance(answer, TemplateResponse) else answer

        return view

    def _all_view(self, request: HttpRequest, action: str) -> HttpResponse:
        form = FilterForm(request.GET)
        back = self.site_url(query=form.query)
        if not form.is_valid():
            return HttpResponseRedirect(back)  # where the errors are shown
        which = form.matching
        note = NoteForm(posted(request)) if action == DeadLetterRun.Action.DISCARD else None

        def do() -> HttpResponse:
            why = note.cleaned_data["note"] if note else ""
            run = dead_letters.begin(action, which, actor=actor(request), note=why)
            said = _("Run %(id)s over %(count)s dead letters began: %(action)s.") % {
                "id": run.pk,
                "count": number(run.total),
                "action": ", ".join(filter(None, (run.get_action_display(), why))),
            }
            self._log(request, [run.subscription or run], said)
            return HttpResponseRedirect(self.site_url("run", run_id=run.pk))

        seen = dead_letters.preview(which)
        question = _question(action, seen, note)
        context = {"by_type": seen.by_type, "form": form, "more": seen.more}
        question.context.update(context)
        return self.ask(request, question, do, back=back)

    def run_view(self, request: HttpRequest, run_id: str) -> HttpResponse:
        run = _run(run_id)
        may = run.state == run.State.RUNNING and is_allowed(request, PERMISSIONS[run.action])
        return self.live(
            request,
            "admin/webhooks/dead_letters/run.html",
            "admin/webhooks/dead_letters/run_live.html",
            _("Run over dead letters"),
            run=run,
            passed_over=run.done - run.changed,
            cancel=self.site_url("run_cancel", run_id=run.pk) if may else "",
            back=self.site_url(),
            now=timezone.now(),
        )

    def cancel_view(self, request: HttpRequest, run_id: str) -> HttpResponse:
        run = _run(run_id)
        if not is_allowed(request, PERMISSIONS[run.action]):
            raise PermissionDenied
        if dead_letters.cancel(run):
            said = _("Run %(id)s was cancelled.") % {"id": run.pk}
            self._log(request, [run.subscription or run], said)
            self.message_user(request, said, messages.SUCCESS)
        else:
            self.message_user(request, _("The run has ended already."), messages.ERROR)
        return HttpResponseRedirect(self.site_url("run", run_id=run.pk))

    # Those that are selected

    def retry_view(self, request: HttpRequest) -> HttpResponse:
        ids = _selected(request)

        def do() -> HttpResponse:
            done = dead_letters.retry(ids)
            return self._done(request, done, len(ids), _("Retried."), _("retried"))

        count = ngettext("%(n)s dead letter", "%(n)s dead letters", len(ids)) % {"n": len(ids)}
        text = [
            _("%(count)s will be sent again, with a new schedule of retries.") % {"count": count},
            _("The receiver may have some of them: each comes under the webhook-id that it had."),
        ]
        question = Question(_("Retry the selected?"), text, _("Retry"))
        return self._ask_selected(request, ids, question, do)

    def discard_view(self, request: HttpRequest) -> HttpResponse:
        ids = _selected(request)
        form = NoteForm(posted(request))

        def do() -> HttpResponse:
            done = dead_letters.discard(ids)
            said = _("Discarded: %(why)s") % {"why": form.cleaned_data["note"]}
            return self._done(request, done, len(ids), said, _("discarded"))

        count = ngettext("%(n)s dead letter", "%(n)s dead letters", len(ids)) % {"n": len(ids)}
        text = [
            _("%(count)s will be discarded.") % {"count": count},
            _("They stay on record, and wait for nobody any more."),
        ]
        question = Question(_("Discard the selected?"), text, _("Discard"), form, is_grave=True)
        return self._ask_selected(request, ids, question, do)

    def _ask_selected(
        self,
        request: HttpRequest,
        ids: Sequence[str],
        question: Question,
        do: Callable[[], HttpResponse],
    ) -> HttpResponse:
        if not ids:
            self.message_user(request, _("Nothing was selected."), messages.WARNING)
            return HttpResponseRedirect(self._back(request))
        return self.ask(request, question, do, back=self._back(request))

    def _done(
        self, request: HttpRequest, done: Sequence[str], asked: int, said: str, word: str
    ) -> HttpResponse:
        rows = Delivery.objects.using(settings.database).filter(pk__any=done)
        self._log(request, list(rows), said)
        text = _("%(done)s of %(asked)s: %(word)s.") % {
            "done": len(done),
            "asked": asked,
            "word": word,
        }
        level = messages.SUCCESS if len(done) == asked else messages.WARNING
        if len(done) < asked:
            text += " " + _("The others are dead no longer, or nothing may be sent to them.")
        self.message_user(request, text, level)
        return HttpResponseRedirect(self._back(request))

    def _back(self, request: HttpRequest) -> str:
        """The page that the selection was made on: its filter stands in the URL, too."""
        return self.site_url(query=FilterForm(request.GET).query)

    def _log(self, request: HttpRequest, rows: Sequence[Model], said: str) -> None:
        if rows:
            LogEntry.objects.log_actions(
                user_id=request.user.pk or 0, queryset=rows, action_flag=CHANGE, change_message=said
            )

    # Exports

    def export_view(self, request: HttpRequest, form: str) -> Any:
        asked = FilterForm(request.GET)
        if form not in TYPES:
            raise Http404
        with timezone.override(UTC):
            if not asked.is_valid():
                return HttpResponseRedirect(self.site_url(query=asked.query))
            which = asked.matching
        may = is_allowed(request, "view_payload")
        columns = COLUMNS if may else COLUMNS[:-1]
        found = dead_letters.each(which, with_payload=may)
        chunks: Iterator[Any] = (
            [dict(zip(columns, _exported(row, may), strict=True)) for row in rows] for rows in found
        )
        return streamed(request, form, "dead-letters", columns, chunks)


def _exported(row: DeadLetter, with_payload: bool) -> list[Any]:
    subscription = row.subscription
    values = [
        *(row.pk, row.event_id, row.event.type, row.subscription_id, subscription.requester),
        subscription.callback_url.split("?")[0],  # people put tokens into the query
        *(row.reason, row.attempts),
        *(health.as_text(row.created_at), health.as_text(row.settled_at)),
    ]
    return [*values, row.event.data] if with_payload else values


def _question(action: str, seen: dead_letters.Preview, note: NoteForm | None) -> Question:
    """What is asked before a run, with a preview of how many."""
    count = f"{number(seen.count)}+" if seen.more else number(seen.count)
    said = ngettext("Preview: %(n)s dead letter", "Preview: %(n)s dead letters", seen.count)
    text = [said % {"n": count}]
    if seen.more:
        what = {"n": number(dead_letters.LOOKED_THROUGH)}
        text.append(_("Counted among the first %(n)s; all that match are meant.") % what)
    if action == DeadLetterRun.Action.RETRY:
        text.append(
            _("A worker sends them again, in batches; what nothing may be sent to is passed over. "
              "What dies from now on is not part of it.")
        )  # fmt: skip
        title, button = _("Retry all that match?"), _("Retry all that match")
    else:
        text.append(_("They stay on record as discarded, and wait for nobody any more."))
        title, button = _("Discard all that match?"), _("Discard all that match")
    return Question(
        title,
        text,
        button,
        note,
        is_grave=note is not None,
        template="admin/webhooks/dead_letters/all.html",
    )


def _run(pk: str) -> DeadLetterRun:
    runs = DeadLetterRun.objects.using(settings.database)
    found = runs.select_related("subscription").filter(pk=pk).first() if is_id("dlr", pk) else None
    if found is None:
        raise Http404
    return found  # type: ignore[no-any-return]


def _selected(request: HttpRequest) -> list[str]:
    """The ids that were ticked; no more than one page has."""
    return [each for each in request.GET.getlist("id") if is_id("dlv", each)][:LISTED]


def _place(text: str, which: Matching) -> Place | None:
    at, _tilde, pk = text.partition("~")
    try:
        return Place.of([which.subscription_id, which.reason, at, pk]) if is_id("dlv", pk) else None
    except ValueError:
        return None
