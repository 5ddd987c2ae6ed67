"""Sealing of secrets at rest, with ``cryptography``'s MultiFernet.

The keys are ``WEBHOOKS["ENCRYPTION_KEYS"]``, newest first: the first one seals, every one opens.
A value that no key opens raises; there is no fallback to the ciphertext or to nothing, so that a
missing key can never turn into an unsigned delivery.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured

from webhooks.conf import settings
from webhooks.exceptions import SecretUnreadable

NO_KEYS = (
    "WEBHOOKS['ENCRYPTION_KEYS'] is empty: signing secrets cannot be stored. Make a key with "
    "python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())' "
    "and keep it outside the repository."
)


class Sealed:
    """A sealed text as it stands in the database. Its ``repr`` and ``str`` show nothing."""

    __slots__ = ("ciphertext",)

    def __init__(self, ciphertext: str) -> None:
        self.ciphertext = ciphertext

    def __repr__(self) -> str:
        return "<sealed>"

    def __bool__(self) -> bool:
        return bool(self.ciphertext)

    def __eq__(self, other: object) -> bool:
        if other == "":  # an empty text is stored as it is, so one that was never sealed equals it
            return not self.ciphertext
        return isinstance(other, Sealed) and other.ciphertext == self.ciphertext

    def __hash__(self) -> int:
        return hash(self.ciphertext)

    def reveal(self) -> str:
        """The plain text; "" where nothing was sealed. Raises SecretUnreadable."""
        return unseal(self.ciphertext) if self.ciphertext else ""


def seal(text: str) -> str:
    """Encrypt ``text`` under the newest key. Raises ImproperlyConfigured without keys."""
    return _fernet().encrypt(text.encode()).decode("ascii")


def unseal(ciphertext: str) -> str:
    """Decrypt with whichever key fits. Raises SecretUnreadable where none does."""
    try:
        return _fernet().decrypt(ciphertext.encode("ascii")).decode()
    except (InvalidToken, UnicodeError) as error:
        raise SecretUnreadable(
            "A stored secret cannot be decrypted: none of WEBHOOKS['ENCRYPTION_KEYS'] opens it. "
            "Put the key it was sealed with back into the list."
        ) from error


def _fernet() -> MultiFernet:
    keys = settings.ENCRYPTION_KEYS
    if keys:
        return _build(tuple(keys))
    if django_settings.DEBUG:
        # Development only, so that a first try needs no key; check webhooks.E003 refuses it
        # elsewhere.
        digest = hashlib.sha256(b"webhooks:" + django_settings.SECRET_KEY.encode()).digest()
        return _build((base64.urlsafe_b64encode(digest).decode(),))
    raise ImproperlyConfigured(NO_KEYS)


@lru_cache(maxsize=8)
def _build(keys: Sequence[str]) -> MultiFernet:
    try:
        return MultiFernet([Fernet(key) for key in keys])
    except (ValueError, TypeError, AttributeError):
        raise ImproperlyConfigured(
            "WEBHOOKS['ENCRYPTION_KEYS'] holds something that is no Fernet key; manage.py check "
            "tells which."
        ) from None  # the original error may show the key
