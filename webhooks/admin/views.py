"""What the admin's own pages share: routes with a permission each, pages, questions, live parts.

The pages hold no rules: what is done, and what is refused, is said by ``lifecycle``, ``probing``
and ``redelivery``; here is asked for it, told how it went, and written into the history.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Model
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.functional import SimpleLazyObject
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from webhooks.exceptions import WebhookError

#: Seconds between two looks of a part that renews itself (also said in live.html).
RENEWED = 15


@dataclass(frozen=True)
class Question:
    """What is asked before something is done.

    text: what will happen, one paragraph each. button: what it says to do it. form: what is to be
    chosen. is_grave: something is lost.
    """

    title: str
    text: Sequence[str]
    button: str
    form: forms.Form | None = None
    is_grave: bool = False
    template: str = "admin/webhooks/confirm.html"
    context: dict[str, Any] = field(default_factory=dict)


def actor(request: HttpRequest) -> str:
    """Who asks, as subscriptions, replays and the log name them."""
    return f"staff:{request.user.get_username()}"[:255]


def is_allowed(request: HttpRequest, permission: str) -> bool:
    """Whether the user has one of our permissions, e.g. ``ping_subscription``."""
    return bool(request.user.has_perm(f"webhooks.{permission}"))


def posted(request: HttpRequest) -> Any:
    """What a form is to be bound to: what was sent, be it nothing; None where it is only shown."""
    return request.POST if request.method == "POST" else None


class PagesAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """A ModelAdmin with pages of its own beside the stock ones."""

    def route(
        self,
        pattern: str,
        view: Callable[..., HttpResponse],
        name: str,
        *,
        permission: str,
        post: bool = False,
    ) -> URLPattern:
        """The path ``<object_id>/<pattern>`` for ``view(request, object, ...)``.

        It is named ``<app>_<model>_<name>``. Who may not view the model, or has not this
        permission of its app, gets 403; an id that is none, 404. post: GET is refused.
        """

        @wraps(view)
        def checked(request: HttpRequest, object_id: str, **kwargs: Any) -> HttpResponse:
            allowed = request.user.has_perm(f"{meta.app_label}.{permission}")
            if not allowed or not self.has_view_permission(request):
                raise PermissionDenied
            found = self.get_object(request, unquote(object_id))
            if found is None:
                raise Http404
            return answering(request, found, **kwargs)

        answering = require_POST(view) if post else view
        meta = self.opts
        return path(
            f"<path:object_id>/{pattern}",
            self.admin_site.admin_view(checked),
            name=f"{meta.app_label}_{meta.model_name}_{name}",
        )

    def url(self, name: str, obj: Model, **kwargs: Any) -> str:
        """The address of such a page, or of a stock one (``change``)."""
        return reverse(
            f"admin:{self.opts.app_label}_{self.opts.model_name}_{name}",
            kwargs={"object_id": quote(obj.pk), **kwargs},
            current_app=self.admin_site.name,
        )

    def list_url(self, request: HttpRequest, model: type[Model], **query: Any) -> str:
        """The address of another model's list, filtered; "" for who may not see it."""
        other = self.admin_site._registry.get(model)
        if other is None or not other.has_view_permission(request):
            return ""
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist"
        address = reverse(name, current_app=self.admin_site.name)
        return f"{address}?{urlencode(query)}" if query else address

    def change_url(self, request: HttpRequest, model: type[Model], pk: str) -> str:
        """The page of a row; "" for who may not see it, and for none."""
        if not pk or not self.list_url(request, model):
            return ""
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}_change"
        return reverse(name, args=[quote(pk)], current_app=self.admin_site.name)

    def render(
        self,
        request: HttpRequest,
        template: str,
        title: str,
        obj: Model | None = None,
        **context: Any,
    ) -> TemplateResponse:
        """A page in the admin's frame; ``obj`` for the way back to it.

        ``admin_view`` sees to it that nobody keeps it.
        """
        shown = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": title,
            "original": obj,
            "back": self.url("change", obj) if obj is not None else "",
            **context,
        }
        request.current_app = self.admin_site.name  # type: ignore[attr-defined]
        return TemplateResponse(request, template, shown)

    def live(
        self,
        request: HttpRequest,
        template: str,
        fragment: str,
        title: str,
        obj: Model | None = None,
        **context: Any,
    ) -> TemplateResponse:
        """A page with a part that renews itself, drawn by ``fragment``.

        ``template`` extends ``admin/webhooks/base.html`` and includes
        ``admin/webhooks/includes/live.html`` where that part is to be.
        """
        if "fragment" in request.GET:
            return self.render(request, fragment, title, obj, **context)
        return self.render(request, template, title, obj, **live_part(request, fragment), **context)

    def act(
        self, request: HttpRequest, obj: Model, do: Callable[[], str], *, tell: bool = True
    ) -> bool:
        """Do something to ``obj`` that ``do`` returns a sentence about, for the history and (tell)
        for the user; False where it was refused, and the user was told why."""
        try:
            said = do()
        except ValidationError as error:
            self.message_user(request, " ".join(error.messages), messages.ERROR)
            return False
        except WebhookError as error:
            self.message_user(request, str(error), messages.ERROR)
            return False
        self.log_change(request, obj, said)
        if tell:
            self.message_user(request, said, messages.SUCCESS)
        return True

    def confirm(
        self, request: HttpRequest, obj: Model, question: Question, do: Callable[[], str]
    ) -> HttpResponse:
        """Ask by GET, do by POST (with CSRF), and go back to the page of ``obj``.

        do: as for :meth:`act`; it reads what was chosen from the question's form.
        """
        form = question.form
        if request.method == "POST" and (form is None or form.is_valid()):
            self.act(request, obj, do)
            return HttpResponseRedirect(self.url("change", obj))
        return self.render(
            request, question.template, question.title, obj, question=question, **question.context
        )


class OverviewAdmin(PagesAdmin):
    """A row's page with an overview above its fields."""

    def overview(self, request: HttpRequest, pk: str) -> dict[str, Any]:
        """All that the template shows as ``overview``; a constant number of statements."""
        raise NotImplementedError

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: Any = None,
    ) -> HttpResponse:
        # Read when the page is drawn, and so after the stock view has looked at the permissions.
        shown = SimpleLazyObject(lambda: self.overview(request, unquote(object_id)))
        extra = {"overview": shown, **(extra_context or {})}
        return super().change_view(request, object_id, form_url, extra)


class SitePageAdmin(PagesAdmin):
    """A page that belongs to no table: its model is a proxy, for the index and the permission."""

    def page(self, request: HttpRequest) -> HttpResponse:
        """The page itself, which each subclass draws; whoever may not see it is kept out before."""
        raise NotImplementedError(f"{type(self).__name__} draws no page: define page(request).")

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        return self.page(request)

    def site_route(
        self,
        pattern: str,
        view: Callable[..., HttpResponse],
        name: str,
        *,
        permission: str = "",
        post: bool = False,
    ) -> URLPattern:
        """The path ``<pattern>`` below the page, for ``view(request, ...)``.

        It is named ``webhooks_<model>_<name>``. Who may not view the page, or has not this
        permission of ours ("": none beside it), gets 403. post: GET is refused.
        """

        @wraps(view)
        def checked(request: HttpRequest, **kwargs: Any) -> HttpResponse:
            allowed = not permission or is_allowed(request, permission)
            if not allowed or not self.has_view_permission(request):
                raise PermissionDenied
            return answering(request, **kwargs)

        answering = require_POST(view) if post else view
        meta = self.opts
        return path(
            pattern,
            self.admin_site.admin_view(checked),
            name=f"{meta.app_label}_{meta.model_name}_{name}",
        )

    def site_url(self, name: str = "changelist", query: Any = None, **kwargs: Any) -> str:
        """The address of such a page, or of the first one."""
        address = reverse(
            f"admin:{self.opts.app_label}_{self.opts.model_name}_{name}",
            kwargs=kwargs,
            current_app=self.admin_site.name,
        )
        return f"{address}?{urlencode(query, doseq=True)}" if query else address

    def ask(
        self,
        request: HttpRequest,
        question: Question,
        do: Callable[[], HttpResponse],
        *,
        back: str,
    ) -> HttpResponse:
        """Ask by GET, with a way ``back``; do by POST (with CSRF). ``do`` writes the history."""
        form = question.form
        if request.method == "POST" and (form is None or form.is_valid()):
            return do()
        return self.render(
            request,
            question.template,
            question.title,
            question=question,
            back=back,
            **question.context,
        )

    def get_urls(self) -> list[Any]:
        return [each for each in super().get_urls() if each.name and "changelist" in each.name]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def live_part(request: HttpRequest, fragment: str) -> dict[str, Any]:
    """What ``includes/live.html`` needs: the part's template, and where it is to be had alone."""
    query = request.GET.copy()
    here = f"{request.path}?{query.urlencode()}" if query else request.path
    query["fragment"] = "1"
    return {
        "live_template": fragment,
        "live_url": f"{request.path}?{query.urlencode()}",
        "live_here": here,
        "live_seconds": RENEWED,
        "live_words": {"pause": _("Pause"), "resume": _("Go on"), "failed": _("Not renewed")},
    }
