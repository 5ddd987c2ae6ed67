"""What all views have in common: who may ask, how much, in which form, and how errors look.

Every policy of REST framework is set here, so that no ``REST_FRAMEWORK`` of the host project
changes it. A view is a class with a handler for each method; what each takes and answers stands in
its ``@operation``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from django.db import connections, models, transaction
from django.utils import translation
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_variables
from rest_framework import views
from rest_framework.exceptions import NotFound, PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response

from webhooks import catalog
from webhooks.access import Client, sees
from webhooks.api import problems
from webhooks.api.authentication import BearerAuthentication, StaffSessionAuthentication
from webhooks.api.ids import is_id
from webhooks.api.negotiation import Negotiation
from webhooks.api.operations import Operation, operation_of
from webhooks.api.pagination import Source, page
from webhooks.api.parsers import StrictJSONParser, check_framing
from webhooks.api.permissions import ScopePermission
from webhooks.api.renderers import JSONRenderer
from webhooks.api.serializers.strict import NoParameters
from webhooks.api.throttling import RequesterThrottle
from webhooks.conf import settings
from webhooks.models import Delivery, Subscription

Row = TypeVar("Row", bound=models.Model)


class APIView(views.APIView):
    """The base of every view of the API."""

    authentication_classes: Any = (BearerAuthentication, StaffSessionAuthentication)
    permission_classes: Any = (ScopePermission,)
    throttle_classes = (RequesterThrottle,)
    parser_classes = (StrictJSONParser,)
    renderer_classes: Any = (JSONRenderer,)
    content_negotiation_class = Negotiation
    metadata_class = None
    versioning_class = None
    # A schema generator of the host's leaves these views out; they are described from their
    # operations, by webhooks.documentation.
    schema = None

    request: Request
    #: The query of the request, as the operation's serializer understands it.
    parameters: dict[str, Any]

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Any:
        view: Any = super().as_view(**initkwargs)
        # With the host's ATOMIC_REQUESTS, a ping would hold a transaction open while it waits.
        for alias in connections:
            view = transaction.non_atomic_requests(alias)(view)
        return view

    # Who asks, and for what

    @property
    def client(self) -> Client:
        """Who asks; set by the permission."""
        found: Client = self.request.client  # type: ignore[attr-defined]
        return found

    @property
    def operation(self) -> Operation | None:
        """What is declared for the method that is asked for; None: it is not allowed."""
        return operation_of(self, self.request.method or "")

    @property
    def using(self) -> str:
        """Alias of the database that holds everything the API shows."""
        return settings.database

    def body(self, **context: Any) -> dict[str, Any]:
        """The request's JSON object, as the operation's serializer understands it.

        Raises ValidationError for anything it does not. Look for what the path names first: a
        stranger's id must answer 404 whatever the body is.
        """
        assert self.operation is not None
        assert self.operation.body is not None
        check_framing(self.request._request)
        return self._validated(self.operation.body, self.request.data, **context)

    def _validated(self, serializer_class: Any, data: Any, **context: Any) -> dict[str, Any]:
        serializer = serializer_class(data=data, context={"client": self.client, **context})
        serializer.is_valid(raise_exception=True)
        found: dict[str, Any] = serializer.validated_data
        return found

    # What is there

    @property
    def subscriptions(self) -> Any:
        """The subscriptions that the client may see."""
        return Subscription.objects.using(self.using).owned_by(self.client)

    @property
    def hidden_types(self) -> list[str]:
        """Names of the event types that the client's scopes do not show.

        A type that is registered no longer is not among them: nobody knows which scope it needed.
        """
        scopes = self.client.scopes
        return [entry.name for entry in catalog.all_types() if not sees(scopes, entry)]

    @property
    def deliveries(self) -> Any:
        """The deliveries that the client may see, without what they carry."""
        return self.visible_deliveries.filter(subscription__in=self.subscriptions)

    @property
    def visible_deliveries(self) -> Any:
        """Deliveries of no type that is hidden, whosever: take your own from them."""
        rows = Delivery.objects.using(self.using).select_related("event").defer("event__data")
        # Where nothing is hidden, a list is not joined with the events for nothing.
        return rows.exclude(event__type__in=hidden) if (hidden := self.hidden_types) else rows

    def one(self, rows: models.QuerySet[Row], prefix: str, id: str) -> Row:
        """The row of this id. Raises NotFound, the same for foreign, unknown and malformed ids."""
        found = rows.filter(pk=id).first() if is_id(prefix, id) else None
        if found is None:
            raise NotFound
        return found

    def subscription(self, id: str) -> Subscription:
        """The client's subscription of this id. Raises NotFound."""
        found: Subscription = self.one(self.subscriptions, "sub", id)
        return found

    def changeable(self, id: str, patterns: list[str] | None = None) -> Subscription:
        """:meth:`subscription`, for what may send to it what it receives: to another URL, say.

        patterns: those that it is to be given. Raises PermissionDenied for a token that does not
        see all of that itself.
        """
        found = self.subscription(id)
        if found.hidden_from(self.client.scopes, patterns):
            raise PermissionDenied(
                _(
                    "The subscription receives event types that the access token has no scope for. "
                    "Ask for a token that has all scopes of the subscription."
                )
            )
        return found

    # What is answered

    def answer(self, shown: Any, *, status: int | None = None, **context: Any) -> Response:
        """What the operation's serializer makes of a thing."""
        declared = self.operation
        assert declared is not None
        assert declared.answer is not None
        serializer = declared.answer(
            shown, many=declared.many, context={"client": self.client, **context}
        )
        return Response(serializer.data, status=status or declared.status)

    def page(self, source: Source[Any], **context: Any) -> Response:
        """One page of many; the query says which."""
        declared = self.operation
        assert declared is not None
        assert declared.answer is not None
        serializer_class = declared.answer

        def show(rows: Iterable[Any]) -> Any:
            made = serializer_class(rows, many=True, context={"client": self.client, **context})
            return made.data

        return Response(page(self.request, source, self.parameters, show))

    # What REST framework calls

    # Reports of errors show what is in every frame below; here that is what the client sends.
    @sensitive_variables()
    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """Call the handler with what it takes of the path.

        A mount below ``<slug:tenant>/`` hands on more, which stays in ``request.resolver_match``.
        """
        name = request.method.lower()
        handler = getattr(self, name, None) if name in self.http_method_names else None
        known = inspect.signature(handler).parameters if handler else {}
        taken = {name: value for name, value in kwargs.items() if name in known}
        # Clients are programs: problems and reasons are English, whatever LANGUAGE_CODE is.
        with translation.override("en"):
            return super().dispatch(request, **taken)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if (declared := self.operation) is not None:
            self.parameters = self._validated(declared.query or NoParameters, request.query_params)

    def options(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        """Which methods there are, in the header ``Allow``."""
        return Response(status=204)

    def get_format_suffix(self, **kwargs: Any) -> None:
        """None: a form is asked for with ``Accept``, and in no other way."""

    def get_exception_handler(self) -> Callable[..., Response]:
        return problems.handle

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        failed = isinstance(response, Response) and response.exception
        if failed:
            # Problems are JSON, whatever else the view can render.
            request.accepted_renderer = JSONRenderer()  # type: ignore[assignment]
            request.accepted_media_type = problems.MEDIA_TYPE
        done = super().finalize_response(request, response, *args, **kwargs)
        declared = operation_of(self, request.method or "")
        # Errors are alike, whatever a success would have shown.
        unkept = failed or (declared is not None and declared.secret)
        done.headers.setdefault("Cache-Control", "no-store" if unkept else "private, no-cache")
        return done
