"""Every error that this package raises on purpose, in one place.

Each message says what is wrong, why, and what to do. Nothing here is an ``OSError``: libraries
that retry or rewrap connection errors must not be able to swallow a refusal of ours.
"""

from __future__ import annotations


class WebhookError(Exception):
    """Base of all errors of this package."""


class CatalogError(WebhookError, ValueError):
    """An event type cannot be registered as it was described."""


class UnknownEventType(WebhookError, LookupError):
    """An event type that no ``webhook_events.py`` registers."""


class InvalidEvent(WebhookError, ValueError):
    """An event cannot be recorded: requester, subject, key or time are not acceptable."""


class InvalidPayload(InvalidEvent):
    """The event's data is no JSON object, cannot be serialised, or is too large."""


class IdempotencyConflict(InvalidEvent):
    """The idempotency key was used before, for other data."""


class WrongDatabase(WebhookError, ValueError):
    """The event would be written outside the database that holds the outbox."""


class BlockedAddress(WebhookError):
    """The URL, or an address that its host resolves to, may not be dialled."""


class SecretUnreadable(WebhookError):
    """A sealed value cannot be decrypted with the configured ``ENCRYPTION_KEYS``."""


class InvalidSecret(WebhookError, ValueError):
    """A signing secret that does not follow the Standard Webhooks form."""


class InvalidSignature(WebhookError):
    """A received message is not authentic, or is too old."""


class IllegalStatusChange(WebhookError):
    """A subscription may not move from its status to the one asked for."""


class HeldByOperator(IllegalStatusChange):
    """What an operator, or the loss of a grant, suspended, no client resumes.

    What an operator suspended is not pinged either.
    """


class NotDeliverable(WebhookError):
    """A delivery cannot be sent again: its subscription has ended, or its event is gone."""


class NotCancellable(WebhookError):
    """A delivery cannot be cancelled: it has ended, or it may be under way."""
