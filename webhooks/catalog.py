"""The catalogue: which event types there are, and what each one holds.

A host project registers its types in modules named ``webhook_events.py``, which are found by
themselves when Django starts. What is not registered can be neither emitted nor subscribed to.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from django.db import models
from django.db.models.signals import post_delete, post_save, pre_delete
from django.utils.translation import gettext as _

from webhooks.access import ALL, sees
from webhooks.exceptions import CatalogError, UnknownEventType
from webhooks.signals import webhook_event

Audience = Literal["requester", "everyone"]

_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*){1,2}")
_PREFIX = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)?")
_VERBS = frozenset({"created", "updated", "deleted"})

#: A longer name does not fit the column of the rows.
MAX_NAME = 128


@dataclass(frozen=True, slots=True)
class EventType:
    """One entry of the catalogue.

    name: ``noun.verb`` or ``namespace.noun.verb``.
    serializer: a DRF serializer class that turns what ``emit`` is given into the data, or None.
    schema: JSON Schema of the data, or None.
    example: an example of the data, or None.
    audience: ``requester``: each event is addressed to one requester; ``everyone``: it may go to
        all.
    scope: an OAuth 2 scope that a subscriber needs for it, or None.
    """

    name: str
    title: str = ""
    description: str = ""
    serializer: Any = None
    schema: Mapping[str, Any] | None = None
    example: Any = None
    audience: Audience = "requester"
    scope: str | None = None


_types: dict[str, EventType] = {}


def register(
    name: str,
    *,
    title: str = "",
    description: str = "",
    serializer: Any = None,
    schema: Mapping[str, Any] | None = None,
    example: Any = None,
    audience: Audience = "requester",
    scope: str | None = None,
) -> EventType:
    """Add an event type and return it. The same definition may be registered again.

    Raises CatalogError for a malformed name, an unknown audience, both of ``serializer`` and
    ``schema``, or a second, different definition.
    """
    if not isinstance(name, str) or len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise CatalogError(
            f"{name!r} is no event type name. Use lower-case noun.verb or namespace.noun.verb, "
            f"e.g. 'push.clicked' or 'crm.contact.created', of at most {MAX_NAME} characters."
        )
    if audience not in ("requester", "everyone"):
        raise CatalogError(
            f"{name!r}: audience must be 'requester' or 'everyone', not {audience!r}."
        )
    if serializer is not None and schema is not None:
        raise CatalogError(f"{name!r}: give a serializer or a schema, not both.")
    entry = EventType(
        name, str(title), str(description), serializer, schema, example, audience, scope
    )
    if _types.setdefault(name, entry) != entry:
        raise CatalogError(
            f"{name!r} is registered already, with another definition. Event types are global: "
            "rename one of the two."
        )
    return entry


def unregister(name: str) -> None:
    """Remove an event type, for tests. Unknown names are ignored."""
    _types.pop(name, None)


def get(name: str) -> EventType:
    """The event type of this name. Raises UnknownEventType, naming the nearest one."""
    try:
        return _types[name]
    except (KeyError, TypeError):
        raise UnknownEventType(_unknown(name, _types)) from None


def all_types() -> Iterator[EventType]:
    """Every event type, by name."""
    return iter(sorted(_types.values(), key=lambda entry: entry.name))


def visible(scopes: Collection[str] | None) -> list[EventType]:
    """The event types that a holder of these scopes may receive and know of, by name."""
    return [entry for entry in all_types() if sees(scopes, entry)]


def check_patterns(patterns: Any, scopes: Collection[str] | None = ALL) -> None:
    """Raise CatalogError unless ``patterns`` is a list of types, ``noun.*`` or ``*`` we know.

    scopes: of whom subscribes. What they do not show is as unknown as what there is not.
    """
    if not isinstance(patterns, list) or not patterns or len(patterns) > 100:
        raise CatalogError(_("Give a list of 1 to 100 event types."))
    known = [entry.name for entry in visible(scopes)]
    for pattern in patterns:
        if pattern == "*" or (isinstance(pattern, str) and pattern in known):
            continue
        if (
            isinstance(pattern, str)
            and pattern.endswith(".*")
            and any(name.startswith(pattern[:-1]) for name in known)
        ):
            continue
        raise CatalogError(_not_offered(pattern, known))


def _not_offered(pattern: Any, known: Collection[str]) -> str:
    """What a subscriber reads, who registers nothing; in the language of the page."""
    facts = {"name": str(pattern)[:MAX_NAME], "near": _nearest(pattern, known)}
    if facts["near"]:
        return _("%(name)r is not registered. Did you mean %(near)r?") % facts
    if known:
        return _("%(name)r is not registered.") % facts
    return _("%(name)r is not registered. No event type is.") % facts


def _unknown(name: Any, known: Collection[str]) -> str:
    """What a developer reads."""
    message = f"{str(name)[:MAX_NAME]!r} is not registered."
    if near := _nearest(name, known):
        return f"{message} Did you mean {near!r}?"
    none = "" if known else " No event type is."
    return f"{message}{none} Register it in a module webhook_events.py."


def _nearest(name: Any, known: Collection[str]) -> str:
    """The known name that is most like this one; "" where none is."""
    near = difflib.get_close_matches(str(name)[:MAX_NAME], known, n=1, cutoff=0.5)
    return near[0] if near else ""


def register_model(
    model: type[models.Model],
    *,
    prefix: str,
    serializer: Any,
    requester: str | Callable[[Any], str] | None = None,
    events: Iterable[str] = ("created", "updated", "deleted"),
) -> None:
    """Register ``<prefix>.created``, ``.updated`` and ``.deleted`` and emit them as rows change.

    serializer: a DRF ModelSerializer class of the model. requester: an attribute's name, or a
    function of the instance, that tells whom the event is for; None: everyone.
    The event is written in the transaction of the change: save inside ``transaction.atomic``,
    since without it Django has committed the row before the event is written. Raw saves (fixtures)
    are skipped; a deleted row is serialised before it goes. ``bulk_create``, ``bulk_update`` and
    ``QuerySet.update`` send no signals, so they emit nothing: call ``emit_many`` beside them.
    Raises CatalogError as :func:`register` does.
    """
    if not _PREFIX.fullmatch(prefix):
        raise CatalogError(f"{prefix!r} is no prefix. Use lower-case noun or namespace.noun.")
    wanted = set(events)
    if not wanted <= _VERBS:
        raise CatalogError(
            f"{prefix!r}: a model emits {', '.join(sorted(_VERBS))}, not "
            f"{', '.join(sorted(wanted - _VERBS))}. Emit anything else where it happens."
        )
    noun = model._meta.verbose_name
    audience: Audience = "everyone" if requester is None else "requester"
    for verb in sorted(wanted):
        register(
            f"{prefix}.{verb}",
            title=f"{noun} {verb}".capitalize(),
            description=f"A {noun} was {verb}.",
            serializer=serializer,
            audience=audience,
        )
    _ModelEvents(model, prefix, serializer, requester, wanted).connect()


class _ModelEvents:
    """Turns a model's signals into events."""

    def __init__(
        self,
        model: type[models.Model],
        prefix: str,
        serializer: Any,
        requester: str | Callable[[Any], str] | None,
        wanted: set[str],
    ) -> None:
        self.model = model
        self.prefix = prefix
        self.serializer = serializer
        self.requester = requester
        self.wanted = wanted
        self._leaving = f"_webhooks_leaving_{prefix}"

    def connect(self) -> None:
        # Not weak: nobody else keeps these. The uid makes a second registration harmless.
        uid = f"webhooks.{self.prefix}"
        post_save.connect(self.saved, sender=self.model, weak=False, dispatch_uid=uid)
        if "deleted" in self.wanted:
            pre_delete.connect(self.leaving, sender=self.model, weak=False, dispatch_uid=uid)
            post_delete.connect(self.deleted, sender=self.model, weak=False, dispatch_uid=uid)

    def saved(self, instance: Any, created: bool, raw: bool, using: str, **kwargs: Any) -> None:
        verb = "created" if created else "updated"
        if not raw and verb in self.wanted:
            self.emit(verb, instance, self.serializer(instance).data, using)

    def leaving(self, instance: Any, **kwargs: Any) -> None:
        # Relations are gone once the row is, so the data are taken before.
        setattr(instance, self._leaving, self.serializer(instance).data)

    def deleted(self, instance: Any, using: str, **kwargs: Any) -> None:
        data = instance.__dict__.pop(self._leaving, None)
        if data is not None:
            self.emit("deleted", instance, data, using)

    def emit(self, verb: str, instance: Any, data: Any, using: str) -> None:
        if self.requester is None:
            requester = ""
        elif callable(self.requester):
            requester = self.requester(instance)
        else:
            requester = getattr(instance, self.requester)
            if requester is not None and not isinstance(requester, str):
                requester = str(requester)
        webhook_event.send(
            sender=self.model,
            type=f"{self.prefix}.{verb}",
            data=dict(data),
            requester=requester,
            subject=f"{self.model._meta.model_name}:{instance.pk}",
            using=using,
        )
