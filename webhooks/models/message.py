"""``Message``: several deliveries that travel under one ``webhook-id``, frozen before their POST.

A batch or a digest's page is written down, with its members, before it is sent for the first time,
and from then on it is the same bytes at each try: format, payload, content, time, window and counts
are here, the events are in their own rows, and ``body_digest`` says what came of them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Self

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from webhooks.formats import Window
from webhooks.models.fields import PrefixedIdField, new_message_id
from webhooks.models.subscription import Content, Payload, Subscription, Trigger


class MessageQuerySet(models.QuerySet["Message"]):
    def digests(self, subscription_id: str) -> Self:
        """The pages of digests that have been frozen, but for those that were replaced."""
        return self.filter(
            subscription_id=subscription_id,
            batch=True,
            window_to__isnull=False,
            superseded_at=None,
        )

    def of_window(self, subscription_id: str, end: datetime) -> Self:
        """The pages of one digest: see :meth:`digests`."""
        return self.digests(subscription_id).filter(window_to=end)

    def replaced(self, subscription_id: str, window: Window) -> Self:
        """Digests of counts of a window that were given up for another one."""
        return self.filter(
            subscription_id=subscription_id,
            content=Content.COUNTS,
            window_from=window.begin,
            window_to=window.end,
            superseded_at__isnull=False,
        )

    def behind(self, subscription_id: str) -> Self:
        """Those of a subscription whose members are not yet what has become of their head."""
        return self.filter(subscription_id=subscription_id).exclude(following="").order_by("pk")

    def batches(self, ids: Collection[str]) -> Self:
        """Those of these messages that are batches: their members share whatever becomes of one."""
        return self.filter(pk__any=sorted(ids), batch=True)


class Message(models.Model):
    """A frozen batch or digest page, or one delivery that was given an id of its own.

    batch: whether its body is the format's envelope; False: that of one event, as without a
    message. window_…, page, pages, counts: of a digest alone; ``counts`` is JSON, events of each
    type in the whole window. body_digest: "" while the members of a digest of counts are gathered,
    and where the body could not be rendered. superseded_at: when its members were given to another
    message, for these bytes could not be made again, or may not be sent any more.

    head, following: of a digest of counts alone. The member that stands for all in the queue, None
    while they are gathered; and the state that has become of it, while others are still to follow
    (``engine/following.py``).
    """

    id = PrefixedIdField(prefix="msg", primary_key=True, default=new_message_id, editable=False)
    subscription = models.ForeignKey(Subscription, models.CASCADE, related_name="messages")
    batch = models.BooleanField(_("batch"), default=False)
    format = models.CharField(_("format"), max_length=32, default="standard")
    payload = models.CharField(
        _("payload"), max_length=8, choices=Payload.choices, default=Payload.FULL
    )
    content = models.CharField(
        _("content"), max_length=8, choices=Content.choices, default=Content.EVENTS
    )
    created_at = models.DateTimeField(_("created at"), default=timezone.now)
    window_trigger = models.CharField(
        _("window"), max_length=16, choices=Trigger.choices, blank=True, default=""
    )
    window_from = models.DateTimeField(_("from"), null=True, blank=True)
    window_to = models.DateTimeField(_("to"), null=True, blank=True)
    page = models.PositiveIntegerField(_("page"), default=1)
    pages = models.PositiveIntegerField(_("pages"), default=1)
    count = models.PositiveIntegerField(_("events"), default=0)
    counts = models.TextField(_("counts"), blank=True, default="", help_text=_("JSON, by type."))
    body_digest = models.CharField(
        _("body digest"),
        max_length=64,
        blank=True,
        default="",
        help_text=_("SHA-256 of the body, hex."),
    )
    superseded_at = models.DateTimeField(_("superseded at"), null=True, blank=True)
    # No foreign key: a member that is removed must not be looked for here.
    head = PrefixedIdField(prefix="dlv", null=True, blank=True, editable=False)
    following = models.CharField(
        max_length=16, blank=True, default="", db_default="", editable=False
    )

    objects = MessageQuerySet.as_manager()

    class Meta:
        verbose_name = _("message")
        verbose_name_plural = _("messages")
        indexes = [
            models.Index(
                fields=["subscription"],
                condition=~models.Q(following=""),
                name="webhooks_message_behind",
            ),
        ]

    def __str__(self) -> str:
        return str(self.pk)

    @property
    def is_gathered(self) -> bool:
        """Whether a digest of counts has all its members, and may be sent."""
        return self.head is not None and self.superseded_at is None

    @property
    def window(self) -> Window | None:
        """The window of a digest's page; None for another message."""
        if self.window_from is None or self.window_to is None:
            return None
        return Window(self.window_from, self.window_to, self.window_trigger)

    def take_window(self, window: Window, page: int, pages: int, counts: Mapping[str, int]) -> None:
        """Make it the page of a digest."""
        self.window_from, self.window_to = window.begin, window.end
        self.window_trigger = window.trigger
        self.page, self.pages = page, pages
        self.counts = json.dumps(dict(sorted(counts.items())), separators=(",", ":"))

    @property
    def counted(self) -> dict[str, int]:
        """Events of each type in the whole window."""
        found: dict[str, Any] = json.loads(self.counts) if self.counts else {}
        return found
