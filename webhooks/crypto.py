"""Sealing of secrets at rest, with ``cryptography``'s MultiFernet.

The keys are ``WEBHOOKS["ENCRYPTION_KEYS"]``, newest first: the first one seals, every one opens.
A value that no key opens raises; there is no fallback to the ciphertext or to nothing, so that a
missing key can never turn into an unsigned delivery. What is stored unsealed opens no better: it is
nobody's secret. Changing the keys: ``manage.py webhooks_rotate_keys``.

A sealed value says nothing of the row that it belongs to, so somebody who can write to the database
can copy it to another one; that it was sealed with our keys is all that is proven.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.views.decorators.debug import sensitive_variables

from webhooks.conf import settings
from webhooks.exceptions import SecretUnreadable

NO_KEYS = (
    "WEBHOOKS['ENCRYPTION_KEYS'] is empty: signing secrets cannot be stored. Make a key with "
    "python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())' "
    "and keep it outside the repository."
)
NO_FERNET_KEY = (
    "WEBHOOKS['ENCRYPTION_KEYS'] holds something that is no Fernet key; manage.py check tells "
    "which."
)
UNREADABLE = (
    "A stored secret cannot be decrypted: none of WEBHOOKS['ENCRYPTION_KEYS'] opens it. Put the "
    "key it was sealed with back into the list."
)


class KeysUnusable(SecretUnreadable, ImproperlyConfigured):
    """There is no usable key in ``ENCRYPTION_KEYS``: nothing can be sealed, and nothing opened."""

    # Here, since ``webhooks.exceptions`` does without Django.


class Sealed:
    """A sealed text as it stands in the database. Its ``repr`` and ``str`` show nothing.

    It is no text and no JSON: what would write it somewhere by mistake fails, or writes
    ``<sealed>``. A pickle holds the ciphertext.
    """

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


@sensitive_variables()
def seal(text: str) -> str:
    """Encrypt ``text`` under the newest key. Raises KeysUnusable."""
    return _fernet().encrypt(text.encode()).decode("ascii")


@sensitive_variables()
def unseal(ciphertext: str) -> str:
    """Decrypt with whichever key fits. Raises SecretUnreadable where none does."""
    try:
        return _fernet().decrypt(ciphertext.encode("ascii")).decode()
    except (InvalidToken, UnicodeError):
        # Not "from": what failed inside may show what it was about.
        raise SecretUnreadable(UNREADABLE) from None


def is_current(ciphertext: str) -> bool:
    """Whether a value opens with the newest key alone. Raises KeysUnusable."""
    try:
        _build(_keys()[:1]).decrypt(ciphertext.encode("ascii"))
    except (InvalidToken, UnicodeError):
        return False
    return True


@sensitive_variables()
def reseal(ciphertext: str) -> str:
    """The same text under the newest key. Raises SecretUnreadable where no key opens it."""
    try:
        return _fernet().rotate(ciphertext.encode("ascii")).decode("ascii")
    except (InvalidToken, UnicodeError):
        raise SecretUnreadable(UNREADABLE) from None


def _fernet() -> MultiFernet:
    return _build(_keys())


def _keys() -> tuple[str, ...]:
    """The configured keys, newest first. Raises KeysUnusable when there is none."""
    keys = settings.ENCRYPTION_KEYS
    if isinstance(keys, str):
        raise KeysUnusable(NO_FERNET_KEY)  # each letter would be taken for a key
    if keys:
        return tuple(keys)
    if django_settings.DEBUG:
        # Development only, so that a first try needs no key; check webhooks.E003 refuses it
        # elsewhere.
        digest = hashlib.sha256(b"webhooks:" + django_settings.SECRET_KEY.encode()).digest()
        return (base64.urlsafe_b64encode(digest).decode(),)
    raise KeysUnusable(NO_KEYS)


@lru_cache(maxsize=8)
@sensitive_variables()
def _build(keys: Sequence[str]) -> MultiFernet:
    try:
        return MultiFernet([Fernet(key) for key in keys])
    except (ValueError, TypeError, AttributeError):
        raise KeysUnusable(NO_FERNET_KEY) from None  # the original error may show the key
