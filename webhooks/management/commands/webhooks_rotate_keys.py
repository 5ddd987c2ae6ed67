"""``manage.py webhooks_rotate_keys``: seal everything anew, under the newest encryption key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from django.apps import apps
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import models

from webhooks.conf import settings
from webhooks.crypto import KeysUnusable, Sealed, is_current, reseal
from webhooks.exceptions import SecretUnreadable
from webhooks.models.fields import SealedField

#: Rows that are read at once.
BATCH = 500
#: How often a value is looked at again that somebody else changes meanwhile.
TRIES = 5

#: What became of a value.
CURRENT, RESEALED, LEFT, UNREADABLE = "current", "resealed", "left", "unreadable"


class Command(BaseCommand):
    help = (
        "Seal all signing secrets, headers and passwords anew under the newest key of "
        "WEBHOOKS['ENCRYPTION_KEYS']. Workers and the API may run meanwhile, and a run that was "
        "broken off goes on where it was. To change a key: add the new one at the end of the list "
        "and restart everything, move it to the front and restart everything, run this until "
        "--check is content, then take the old one away."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--check",
            action="store_true",
            help="change nothing; fail where a value is not under the newest key",
        )

    def handle(self, *args: Any, check: bool, **options: Any) -> None:
        found: Counter[str] = Counter()
        try:
            for field in sealed_fields():
                found += self.go_through(field, check)
        except KeysUnusable as error:
            raise CommandError(str(error)) from None
        self.judge(found, check)

    def go_through(self, field: SealedField, check: bool) -> Counter[str]:
        """Every value of one column, in batches; how many became what."""
        name = f"{field.model._meta.label}.{field.name}"
        found: Counter[str] = Counter()
        for batch in batches(field):
            for pk, sealed in batch:
                became = look_at(sealed) if check else renew(field, pk, sealed)
                found[became] += 1
                if became == UNREADABLE:
                    self.stderr.write(f"{name} of {pk}: no key opens it")
            self.stdout.write(f"{name}: {found.total()} looked at, {told(found)}")
        if not found:
            self.stdout.write(f"{name}: none")
        return found

    def judge(self, found: Counter[str], check: bool) -> None:
        """Say how it ended. Raises CommandError where something is left to be done."""
        if found[UNREADABLE]:
            others = f"Of the others, {found[LEFT]} are not under the newest key."
            raise CommandError(
                f"{found[UNREADABLE]} values are opened by no key (see above): put the key that "
                "they were sealed with back into WEBHOOKS['ENCRYPTION_KEYS'], or have the secret "
                f"rotated and the headers set again. {others}"
            )
        if found[LEFT]:
            raise CommandError(
                f"{found[LEFT]} values are not under the newest key. Run webhooks_rotate_keys"
                f"{'' if check else ' again: somebody changed them meanwhile'}."
            )
        self.stdout.write("Everything is sealed under the newest key.")


def sealed_fields() -> Iterator[SealedField]:
    """The columns of this app that hold something sealed."""
    for model in apps.get_app_config("webhooks").get_models():
        for field in model._meta.concrete_fields:
            if isinstance(field, SealedField):
                yield field


def batches(field: SealedField) -> Iterator[list[tuple[Any, Sealed]]]:
    """Primary key and value of every row that has one, in the order of the keys.

    What is added meanwhile comes last, for the keys sort by time.
    """
    rows = _rows(field).exclude(**{field.attname: ""}).order_by("pk")
    batch = list(rows.values_list("pk", field.attname)[:BATCH])
    while batch:
        yield batch
        batch = list(rows.filter(pk__gt=batch[-1][0]).values_list("pk", field.attname)[:BATCH])


def look_at(sealed: Sealed) -> str:
    """What a value is. Raises KeysUnusable."""
    if is_current(sealed.ciphertext):
        return CURRENT
    try:
        sealed.reveal()
    except KeysUnusable:
        raise
    except SecretUnreadable:
        return UNREADABLE
    return LEFT


def renew(field: SealedField, pk: Any, sealed: Sealed | None) -> str:
    """Seal one value anew, unless it is somebody's new one by then. Raises KeysUnusable.

    One statement, in a transaction of its own: nothing waits for it, and there is no order of locks
    to keep. What is sealed stays the same, so no worker has to hear of it.
    """
    row = _rows(field).filter(pk=pk)
    for _ in range(TRIES):
        if not sealed:
            return CURRENT  # the row is gone, or there is nothing in it any more
        became = look_at(sealed)
        if became != LEFT:
            return became
        anew = Sealed(reseal(sealed.ciphertext))
        if row.filter(**{field.attname: sealed}).update(**{field.attname: anew}):
            return RESEALED
        sealed = row.values_list(field.attname, flat=True).first()
    return LEFT


def told(found: Counter[str]) -> str:
    words = {
        RESEALED: "sealed anew",
        CURRENT: "under the newest key before",
        LEFT: "under an older key",
        UNREADABLE: "opened by no key",
    }
    return ", ".join(f"{found[each]} {word}" for each, word in words.items() if found[each])


def _rows(field: SealedField) -> models.QuerySet[Any]:
    return field.model._base_manager.using(settings.database)
