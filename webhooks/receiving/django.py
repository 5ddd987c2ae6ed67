"""For subscribers written with Django: a view that verifies, and one that dispatches as well.

Both answer as senders expect: 2xx for what was taken, 401 for what is not authentic, and an error
that the handler raised as a 500, so that the message comes again.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, suppress
from typing import Any, Final

from django.core.cache import caches
from django.core.exceptions import RequestDataTooBig
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

from webhooks.exceptions import InvalidSignature
from webhooks.receiving.dispatching import (
    AnyHandler,
    Dispatched,
    Handler,
    Handlers,
    Message,
    Seen,
    echo_hook_secret,
    receive,
)
from webhooks.receiving.verifying import DEFAULT_TOLERANCE

#: Larger bodies are refused unread. The largest batch has 768 KiB.
MAX_BYTES: Final = 1024 * 1024
#: Seconds that the id of a handled message is kept: longer than a sender tries.
KEPT_SECONDS: Final = 7 * 86_400
#: Seconds after which a message that is under way counts as lost with its process.
BUSY_SECONDS: Final = 60

Secret = str | Sequence[str] | Callable[[HttpRequest], str | Sequence[str]]
View = Callable[..., HttpResponseBase]


def webhook_view(
    *,
    secret: Secret,
    tolerance: int | None = DEFAULT_TOLERANCE,
    max_bytes: int = MAX_BYTES,
    allowed_origins: Collection[str] = (),
    allowed_rate: int | None = None,
) -> Callable[[Callable[..., HttpResponseBase | None]], View]:
    """Make a view of ``function(request, message)``, which is called with authentic messages only.

    secret: ``whsec_…``, several of them, or a function of the request that returns either.
    tolerance: seconds that a message may be old; None: any age. max_bytes: of a body.
    allowed_origins: senders whose CloudEvents handshake (OPTIONS) is answered with consent, or
        ``*`` for all; none: OPTIONS is not allowed. allowed_rate: POSTs for each minute that are
        granted by it; None: any number.

    None becomes ``204``, any other answer of the function is passed on; what it raises is raised,
    and the sender tries again. The view is a POST without CSRF token; it answers 401 to what is not
    authentic, 413 to what is too large, and echoes ``X-Hook-Secret`` in a 2xx.
    """
    origins = {allowed_origins} if isinstance(allowed_origins, str) else set(allowed_origins)
    origins = {origin.lower() for origin in origins}
    methods = "POST, OPTIONS" if origins else "POST"

    def decorate(function: Callable[..., HttpResponseBase | None]) -> View:
        if inspect.iscoroutinefunction(function):
            raise TypeError(
                f"{function.__name__} is asynchronous. Write a plain function: Django runs it in a "
                "thread."
            )

        @csrf_exempt
        @functools.wraps(function)
        def view(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if request.method == "OPTIONS" and origins:
                return _consent(request, origins, allowed_rate, methods)
            if request.method != "POST":
                return _problem(405, "method_not_allowed", "Send a POST.", Allow=methods)
            try:
                body = _body(request, max_bytes)
            except RequestDataTooBig:
                return _problem(413, "too_large", f"A body has at most {max_bytes} bytes.")
            secrets = secret(request) if callable(secret) else secret
            try:
                message = receive(body, request.headers, secrets, tolerance)
            except InvalidSignature as error:
                challenge = {"WWW-Authenticate": "StandardWebhooks"}
                return _problem(401, "invalid_signature", str(error), **challenge)
            answer = function(request, message, *args, **kwargs)
            response = HttpResponse(status=204) if answer is None else answer
            if 200 <= response.status_code < 300:
                for name, value in echo_hook_secret(request.headers).items():
                    response[name] = value
            return response

        return view

    return decorate


class CacheSeen(Seen):
    """Ids in one of Django's caches. It must be shared by all processes that receive."""

    def __init__(
        self,
        alias: str = "default",
        seconds: int = KEPT_SECONDS,
        *,
        busy_seconds: int = BUSY_SECONDS,
        name: str = "",
    ) -> None:
        """alias: in ``CACHES``. seconds: for which a handled id is kept.

        busy_seconds: longer than the handlers of a message may take: after that the next copy is
        taken, for the process may have died. name: sets apart endpoints that receive the same
        events: each of them is sent the same ids.
        """
        self.alias = alias
        self.seconds = seconds
        self.busy_seconds = busy_seconds
        self.name = name

    def remember(self, message_id: str) -> bool:
        return bool(caches[self.alias].add(self._key(message_id), "busy", self.busy_seconds))

    def is_handled(self, message_id: str) -> bool:
        return bool(caches[self.alias].get(self._key(message_id)) == "handled")

    def confirm(self, message_id: str) -> None:
        caches[self.alias].set(self._key(message_id), "handled", self.seconds)

    def forget(self, message_id: str) -> None:
        caches[self.alias].delete(self._key(message_id))

    def _key(self, message_id: str) -> str:
        # A digest: not every cache takes every key.
        text = f"{self.name}\n{message_id}"
        return f"webhooks.receiving:{hashlib.sha256(text.encode()).hexdigest()}"


class Dispatcher:
    """Handlers by event type behind one URL: ``path("hooks/", dispatcher.view)``.

    A message is verified, taken once, and handed to the handlers that match. The answer is 204,
    also to a repeat and to what no handler wants; 409 while another copy is being handled.
    """

    def __init__(
        self,
        secret: Secret,
        *,
        seen: Seen | None = None,
        run: Callable[[Handler, Message], object] | None = None,
        tolerance: int | None = DEFAULT_TOLERANCE,
        max_bytes: int = MAX_BYTES,
        allowed_origins: Collection[str] = (),
        allowed_rate: int | None = None,
    ) -> None:
        """seen: where ids are remembered; None: a CacheSeen in the default cache, for each path.

        run: calls a handler with a message; None: at once, within the sender's patience;
        ``django_q.tasks.async_task`` hands it to a worker. The rest is as for
        :func:`webhook_view`.
        """
        self._seen = seen
        self._handlers = _AtomicHandlers(run)
        receives = webhook_view(
            secret=secret,
            tolerance=tolerance,
            max_bytes=max_bytes,
            allowed_origins=allowed_origins,
            allowed_rate=allowed_rate,
        )
        #: The view for the URL conf. Arguments in the URL are the secret's business alone.
        self.view = _non_atomic(receives(self._take))

    def on(self, *patterns: str) -> Callable[[AnyHandler], AnyHandler]:
        """Register a function for event types; see :meth:`Handlers.on`."""
        return self._handlers.on(*patterns)

    def _take(
        self, request: HttpRequest, message: Message, *args: Any, **kwargs: Any
    ) -> HttpResponse | None:
        seen = self._seen or CacheSeen(name=request.path)
        if self._handlers.dispatch(message, seen) is Dispatched.UNDER_WAY:
            return _problem(409, "under_way", "Another copy of this message is being handled.")
        return None


class _AtomicHandlers(Handlers):
    """Handlers in the transactions of ``ATOMIC_REQUESTS``.

    They end before the message counts as handled: a commit that fails must not lose it.
    """

    def handle(self, calls: Sequence[tuple[Handler, Message]]) -> None:
        with ExitStack() as stack:
            for alias in _atomic_databases():
                stack.enter_context(transaction.atomic(using=alias))
            super().handle(calls)


def _atomic_databases() -> list[str]:
    return [alias for alias, each in connections.settings.items() if each.get("ATOMIC_REQUESTS")]


def _non_atomic(view: View) -> View:
    """The view outside the transactions of ``ATOMIC_REQUESTS``."""
    for alias in connections.settings:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view


def _body(request: HttpRequest, max_bytes: int) -> bytes:
    """The raw body. Raises RequestDataTooBig, before it is read where its length is told."""
    with suppress(ValueError):
        if int(request.headers.get("Content-Length", "")) > max_bytes:
            raise RequestDataTooBig
    body = request.body
    if len(body) > max_bytes:
        raise RequestDataTooBig
    return body


def _consent(
    request: HttpRequest, origins: Collection[str], rate: int | None, methods: str
) -> HttpResponse:
    """The answer to the handshake of CloudEvents (HTTP webhook binding, section 4)."""
    origin = request.headers.get("WebHook-Request-Origin", "")
    if not origin or ("*" not in origins and origin.lower() not in origins):
        return _problem(403, "origin_not_allowed", "This sender has no consent to send here.")
    response = HttpResponse(status=204)
    response["Allow"] = methods
    response["WebHook-Allowed-Origin"] = origin
    response["WebHook-Allowed-Rate"] = "*" if rate is None else str(rate)
    return response


def _problem(status: int, error: str, detail: str, **headers: str) -> HttpResponse:
    return JsonResponse({"error": error, "detail": detail}, status=status, headers=headers)
