"""What happens when an owner is entitled no longer: its subscriptions are suspended, with a reason.

Who is entitled is decided in :mod:`webhooks.access`. Here that is asked again when Django says that
an application, a user or a grant has gone, and by each sweep, which misses nothing.
"""

from __future__ import annotations

import logging
from typing import Any

from django.contrib.auth import get_user_model
from django.db import transaction
from django.db.models import F, Q
from django.db.models.signals import post_delete, post_save
from django.utils import timezone
from oauth2_provider.models import (
    get_access_token_model,
    get_application_model,
    get_refresh_token_model,
)

from webhooks.access import Entitlements
from webhooks.conf import settings
from webhooks.exceptions import IllegalStatusChange
from webhooks.lifecycle import change_status
from webhooks.models import Lane, Subscription
from webhooks.models.subscription import Status

logger = logging.getLogger("webhooks")

#: Subscriptions that are looked at in one statement.
PAGE = 500
#: Subscriptions that are suspended in the request that took the grant away. The sweep does the
#: rest, and no worker sends anything meanwhile: it asks whenever it takes a lane, or hears of a
#: change.
AT_ONCE = 20


def review(using: str) -> int:
    """Suspend every subscription whose owner is entitled no longer; how many there were."""
    concerned = Subscription.objects.using(using).filter(
        status__in=(Status.PENDING, Status.SUBSCRIBED)
    )
    if settings.ENTITLEMENT is None:
        concerned = concerned.filter(
            Q(application__isnull=False) | Q(user__isnull=False) | Q(grant_revoked_at__isnull=False)
        )
    suspended = 0
    after = ""
    while True:
        page = concerned.filter(pk__gt=after) if after else concerned
        found = list(page.order_by("pk").defer("headers", "basic_auth")[:PAGE])
        suspended += _suspend_lost(found)
        if len(found) < PAGE:
            return suspended
        after = found[-1].pk


def suspend_lost(subscription: Subscription) -> None:
    """Suspend a subscription that was found to be entitled no longer."""
    # One whose endpoint was never proven has received nothing, and has nothing to keep.
    pending = subscription.status == Status.PENDING
    try:
        change_status(
            subscription,
            Status.UNSUBSCRIBED if pending else Status.SUSPENDED,
            reason="entitlement_lost",
        )
    except (IllegalStatusChange, Subscription.DoesNotExist):
        logger.info("%s lost its entitlement, but had ended already.", subscription.pk)


def connect() -> None:
    """Hear of applications, users and grants that go; called when Django is ready."""
    for model, signal, receiver in (
        (get_application_model(), post_delete, _application_gone),
        (get_user_model(), post_delete, _user_gone),
        (get_user_model(), post_save, _user_saved),
        (get_access_token_model(), post_delete, _access_token_gone),
        (get_refresh_token_model(), post_delete, _refresh_token_gone),
        (get_refresh_token_model(), post_save, _refresh_token_saved),
    ):
        uid = f"webhooks.{receiver.__name__}"
        signal.connect(receiver, sender=model, dispatch_uid=uid)


def _application_gone(instance: Any, using: str, **kwargs: Any) -> None:
    pk = instance.pk  # the instance forgets it once the row is gone
    transaction.on_commit(lambda: _look_at(Q(application=pk)), using=using, robust=True)


def _user_gone(instance: Any, using: str, **kwargs: Any) -> None:
    pk = instance.pk
    transaction.on_commit(lambda: _look_at(Q(user=pk)), using=using, robust=True)


def _user_saved(instance: Any, using: str, **kwargs: Any) -> None:
    if not instance.is_active:
        _user_gone(instance, using)


def _access_token_gone(instance: Any, using: str, origin: Any = None, **kwargs: Any) -> None:
    # Expired tokens are cleared away in bulk: that takes no grant away. One that is deleted for
    # itself, or while it was good, was revoked.
    if origin is instance or instance.expires > timezone.now():
        _grant_may_be_gone(instance, using)


def _refresh_token_saved(instance: Any, using: str, **kwargs: Any) -> None:
    if instance.revoked is not None:
        _grant_may_be_gone(instance, using)


def _refresh_token_gone(instance: Any, using: str, origin: Any = None, **kwargs: Any) -> None:
    # Those that were revoked before, or have expired, are cleared away in bulk.
    if origin is instance and instance.revoked is None:
        _grant_may_be_gone(instance, using)


def _grant_may_be_gone(token: Any, using: str) -> None:
    if token.user_id is None or token.application_id is None:
        return  # a client's own token is no grant of anybody's
    pair = Q(application=token.application_id, user=token.user_id)
    # After the commit: a token that is refreshed is revoked just before its successor is made.
    transaction.on_commit(lambda: _look_at_grant(pair), using=using, robust=True)


def _look_at_grant(pair: Q) -> None:
    if get_refresh_token_model().objects.filter(pair, revoked__isnull=True).exists():
        return
    if get_access_token_model().objects.filter(pair, expires__gt=timezone.now()).exists():
        return
    concerned = Subscription.objects.using(settings.database).filter(pair)
    if concerned.filter(grant_revoked_at__isnull=True).update(grant_revoked_at=timezone.now()):
        _look_at(pair)


def confirm_grant(token: Any) -> None:
    """Look again at the grant behind a token that a request was accepted with.

    Call it after the request has written something for its owner: a revocation that came in
    between found nothing to suspend yet.
    """
    if token is None or not hasattr(token, "pk") or token.user_id is None:
        return
    if not type(token)._default_manager.filter(pk=token.pk).exists():
        _look_at_grant(Q(application=token.application_id, user=token.user_id))


def _look_at(whose: Q) -> None:
    using = settings.database
    concerned = Subscription.objects.using(using).filter(
        whose, status__in=(Status.PENDING, Status.SUBSCRIBED)
    )
    first = list(concerned.order_by("pk")[:AT_ONCE])
    _suspend_lost(first)
    if len(first) == AT_ONCE:
        # Whoever holds the lanes of the others asks again within a second.
        others = Lane.objects.using(using).filter(subscription__in=concerned)
        others.update(control=F("control") + 1)


def _suspend_lost(found: list[Subscription]) -> int:
    entitlements = Entitlements(found)
    lost = [each for each in found if entitlements.granted(each) is None]
    for subscription in lost:
        suspend_lost(subscription)
    return len(lost)
