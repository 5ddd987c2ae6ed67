"""``Worker``: who is draining now. ``Duty``: what one process at a time does for the service."""

from __future__ import annotations

import os
import socket
import uuid
from datetime import datetime, timedelta
from typing import Self

from django.db import IntegrityError, models, transaction
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from webhooks.clock import db_now

#: A worker that has not been heard of for so long is taken for dead.
SILENCE = timedelta(seconds=30)


class WorkerQuerySet(models.QuerySet["Worker"]):
    def silent(self, now: datetime) -> Self:
        return self.filter(heartbeat_at__lt=now - SILENCE)

    def alive(self, now: datetime) -> Self:
        return self.filter(heartbeat_at__gte=now - SILENCE)

    def take_slot(self, token: uuid.UUID, slots: int | None) -> Worker | None:
        """Register a worker in a free slot; None when all ``slots`` are taken.

        slots: how many there are; None: as many as come (workers that an operator starts).
        """
        now = db_now(self.db)
        self.silent(now).delete()
        self._bury_dead_neighbours()
        taken = set(self.values_list("slot", flat=True))
        slot = 0
        while slots is None or slot < slots:
            if slot not in taken:
                worker = Worker(
                    slot=slot,
                    token=token,
                    host=socket.gethostname()[:255],
                    pid=os.getpid(),
                    started_at=now,
                    heartbeat_at=now,
                )
                try:
                    with transaction.atomic(using=self.db):
                        worker.save(using=self.db, force_insert=True)
                except IntegrityError:
                    pass  # somebody was faster; the next slot may be free
                else:
                    return worker
            slot += 1
        return None

    def _bury_dead_neighbours(self) -> None:
        """Free the slots of processes of this machine that are gone, without waiting.

        At worst (two containers of one host name) a living worker loses its row for a second, and
        one worker too many runs: slots bound the load, nothing rests on their exactness.
        """
        for worker in self.filter(host=socket.gethostname()[:255]).exclude(pid=os.getpid()):
            try:
                os.kill(worker.pid, 0)
            except ProcessLookupError:
                self.filter(pk=worker.pk, token=worker.token).delete()
            except OSError:
                continue  # it exists, and belongs to somebody else


class Worker(models.Model):
    """A slot that a drain occupies, with its heartbeat."""

    slot = models.PositiveIntegerField(_("slot"), unique=True)
    token = models.UUIDField(editable=False)
    host = models.CharField(_("host"), max_length=255)
    pid = models.PositiveIntegerField(_("process id"))
    started_at = models.DateTimeField(_("started at"))
    heartbeat_at = models.DateTimeField(_("last heard of"))
    in_flight = models.PositiveIntegerField(_("POSTs in flight"), default=0)
    lanes = models.PositiveIntegerField(_("lanes held"), default=0)

    objects = WorkerQuerySet.as_manager()

    class Meta:
        verbose_name = _("worker")
        verbose_name_plural = _("workers")

    def __str__(self) -> str:
        facts = {"process": f"{self.host}:{self.pid}", "slot": self.slot}
        return gettext("%(process)s (slot %(slot)s)") % facts


class DutyQuerySet(models.QuerySet["Duty"]):
    def lock(self, name: str) -> Duty | None:
        """Lock a duty's row for this transaction; None when another process has it.

        Must be the first statement of a transaction. Where rows cannot be skipped (SQLite), an
        UPDATE stands first: it takes the write lock before anything is read, so the transaction
        can never fail for a stale snapshot.
        """
        if self._skips_locked():
            return self.select_for_update(skip_locked=True).filter(name=name).first()
        self.filter(name=name).update(name=name)
        return self.filter(name=name).first()

    def ensure(self) -> None:
        """Make the rows that are missing: after the first migration, or in an emptied database."""
        if self.count() < len(Duty.Name.values):
            from webhooks.models.event import Event

            last = Event.objects.using(self.db).aggregate(last=models.Max("seq"))["last"] or 0
            self.bulk_create(
                [
                    Duty(name=name, counter=last if name == Duty.Name.FANOUT else 0)
                    for name in Duty.Name.values
                ],
                ignore_conflicts=True,
            )

    def _skips_locked(self) -> bool:
        return bool(transaction.get_connection(self.db).features.has_select_for_update_skip_locked)

    def assume(self, name: str, holder: uuid.UUID, seconds: float) -> bool:
        """Take or keep a duty for some seconds; False while another holder has it."""
        now = db_now(self.db)
        free = models.Q(until__isnull=True) | models.Q(until__lte=now) | models.Q(holder=holder)
        return bool(
            self.filter(free, name=name).update(
                holder=holder, until=now + timedelta(seconds=seconds), ran_at=now
            )
        )

    def relieve(self, name: str, holder: uuid.UUID) -> None:
        """Give a duty back."""
        self.filter(name=name, holder=holder).update(holder=None, until=None)

    def note(
        self,
        name: str,
        *,
        add: int = 0,
        planned: datetime | None = None,
        every: timedelta | None = None,
    ) -> None:
        """Remember that a duty was done just now, and add to its counter.

        planned: when it was to be done; without it, ``every`` so long after the last time.
        """
        now = db_now(self.db)
        duty = self.filter(name=name)
        if planned is None and every is not None:
            last = duty.values_list("ran_at", flat=True).first()
            planned = last + every if last is not None else None
        late = None if planned is None else max(0, round((now - planned).total_seconds() * 1000))
        duty.update(ran_at=now, late_ms=late, counter=models.F("counter") + add)


class Duty(models.Model):
    """Work that one process at a time does for the whole service.

    ``fanout``: its row is the fan-out's lock, its counter the last ``Event.seq`` given.
    ``sitter``: waits for retries that are due soon. ``sweep``: its counter is the number of lanes
    it had to repair (there should be none). ``prune``: its counter is the number of rows removed.
    ``tick``: begins the windows of digests, each hour. late_ms: of those that run by the clock.
    """

    class Name(models.TextChoices):
        FANOUT = "fanout", _("fan-out")
        SITTER = "sitter", _("sitter")
        SWEEP = "sweep", _("sweep")
        PRUNE = "prune", _("prune")
        TICK = "tick", _("tick")

    name = models.CharField(_("name"), max_length=16, primary_key=True, choices=Name.choices)
    counter = models.BigIntegerField(_("counter"), default=0)
    holder = models.UUIDField(null=True, editable=False)
    until = models.DateTimeField(_("held until"), null=True)
    ran_at = models.DateTimeField(_("last run"), null=True)
    late_ms = models.PositiveBigIntegerField(
        _("late, ms"),
        null=True,
        help_text=_("How long after its planned time the last run began; empty: it has none."),
    )

    objects = DutyQuerySet.as_manager()

    class Meta:
        verbose_name = _("duty")
        verbose_name_plural = _("duties")

    def __str__(self) -> str:
        return self.name
