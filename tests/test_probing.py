"""Pings: one signed POST, now, recorded and counted nowhere."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from tests.world import Answer, Receiver, emit_orders, in_background, subscribe
from webhooks.crypto import Sealed
from webhooks.exceptions import HeldByOperator, IllegalStatusChange, SecretUnreadable
from webhooks.formats.signing import generate_secret
from webhooks.lifecycle import change_status, rotate_secret
from webhooks.models import Delivery, DeliveryAttempt, DeliveryStats, Lane, SigningSecret
from webhooks.models import Subscription as SubscriptionModel
from webhooks.models.subscription import Handshake, Status
from webhooks.probing import ping

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def configure(settings: Any) -> Callable[..., None]:
    def set_keys(**keys: Any) -> None:
        settings.WEBHOOKS = {**settings.WEBHOOKS, **keys}

    return set_keys


class TestOnePing:
    def test_it_is_sent_signed_and_recorded(self, receiver: Receiver) -> None:
        secret = generate_secret()
        subscription = subscribe(receiver, secret=secret)
        attempt = ping(subscription)
        [post] = receiver.posts
        body = Webhook(secret).verify(post.body, post.headers)
        assert body["type"] == "webhooks.ping"
        assert body["data"] == {"subscription": subscription.pk}
        assert body["id"] == post.id == attempt.message_id
        assert post.id.startswith("msg_")
        stored = DeliveryAttempt.objects.get()
        assert stored == attempt
        assert (stored.trigger, stored.number, stored.event_count) == ("ping", 1, 1)
        assert (stored.status_code, stored.error_code, stored.excerpt) == (200, "", "ok")
        assert stored.subscription_id == subscription.pk
        assert stored.due_at == stored.started_at

    def test_the_subscriptions_own_headers_go_with_it(self, receiver: Receiver) -> None:
        subscription = subscribe(receiver, headers={"X-Mine": "1"}, basic_auth="user:password")
        ping(subscription)
        [post] = receiver.posts
        assert post.headers["x-mine"] == "1"
        assert post.headers["authorization"] == "Basic dXNlcjpwYXNzd29yZA=="

    def test_after_a_rotation_both_secrets_verify(self, receiver: Receiver) -> None:
        old = generate_secret()
        subscription = subscribe(receiver, secret=old)
        new = rotate_secret(subscription)
        ping(subscription)
        [post] = receiver.posts
        for secret in (old, new):
            Webhook(secret).verify(post.body, post.headers)
        with pytest.raises(WebhookVerificationError):
            Webhook(generate_secret()).verify(post.body, post.headers)

    def test_two_pings_are_two_messages(self, receiver: Receiver) -> None:
        subscription = subscribe(receiver)
        assert ping(subscription).message_id != ping(subscription).message_id
        assert len(receiver.ids) == 2

    def test_it_counts_nowhere_and_paces_nothing(self, receiver: Receiver) -> None:
        receiver.answer = Answer(status=503, headers={"Retry-After": "600"})
        subscription = subscribe(receiver)
        emit_orders(1)
        before = Lane.objects.values().get()
        ping(subscription)
        assert Lane.objects.values().get() == before
        assert not DeliveryStats.objects.exists()
        assert not Delivery.objects.exists()

    def test_who_asked_is_logged(self, receiver: Receiver, caplog: Any) -> None:
        with caplog.at_level(logging.INFO, "webhooks"):
            ping(subscribe(receiver), actor="app:a\nforged line")
        assert "is pinged by 'app:a\\nforged line'" in caplog.text


class TestOutcomes:
    @pytest.mark.parametrize(
        ("status", "code"),
        [
            (204, ""),
            (302, "redirect"),
            (404, "client_error"),
            (429, "rate_limited"),
            (500, "server_error"),
        ],
    )
    def test_every_answer_is_recorded(self, receiver: Receiver, status: int, code: str) -> None:
        receiver.answer = Answer(status=status, body=b"")
        attempt = ping(subscribe(receiver))
        assert (attempt.status_code, attempt.error_code) == (status, code)
        assert len(receiver.posts) == 1

    def test_gone_unsubscribes_nobody(self, receiver: Receiver) -> None:
        receiver.answer = Answer(status=410)
        subscription = subscribe(receiver)
        assert ping(subscription).error_code == "gone"
        subscription.refresh_from_db()
        assert subscription.status == Status.SUBSCRIBED

    def test_one_that_never_answers_times_out(self, receiver: Receiver, configure: Any) -> None:
        configure(TIMEOUT=0.5)
        receiver.answer = Answer(after=30)
        attempt = ping(subscribe(receiver))
        assert (attempt.status_code, attempt.error_code) == (None, "timeout")
        assert attempt.elapsed_ms >= 400

    def test_nobody_listens(self, receiver: Receiver) -> None:
        subscription = subscribe(receiver)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        SubscriptionModel.objects.update(callback_url=url)
        attempt = ping(subscription)
        assert (attempt.status_code, attempt.error_code) == (None, "connection_refused")

    def test_a_blocked_address_is_not_dialled_and_nothing_of_it_is_told(
        self, receiver: Receiver, configure: Any
    ) -> None:
        subscription = subscribe(receiver)
        configure(ALLOWED_NETWORKS=[])
        attempt = ping(subscription)
        assert receiver.posts == []
        assert (attempt.status_code, attempt.error_code) == (None, "blocked_address")
        assert attempt.excerpt == ""
        assert "127.0.0.1" not in attempt.error_detail

    def test_what_a_receiver_says_can_be_stored(self, receiver: Receiver) -> None:
        receiver.answer = Answer(status=500, body=b"a\0b\xff" * 5000)
        attempt = ping(subscribe(receiver))
        attempt.refresh_from_db()
        assert attempt.excerpt.startswith("ab\ufffdab")
        assert attempt.truncated


class TestWhoMayBePinged:
    @pytest.mark.parametrize("reason", ["client", "automatic", "entitlement_lost"])
    def test_one_that_its_client_or_the_service_suspended(
        self, reason: str, receiver: Receiver
    ) -> None:
        subscription = subscribe(receiver)
        change_status(subscription, Status.SUSPENDED, reason=reason)
        assert ping(subscription).status_code == 200

    def test_not_one_that_an_operator_suspended_whatever_the_caller_believes(
        self, receiver: Receiver
    ) -> None:
        subscription = subscribe(receiver)
        stale = SubscriptionModel.objects.get()
        change_status(subscription, Status.SUSPENDED, reason="operator")
        for each in (subscription, stale):
            with pytest.raises(HeldByOperator, match="no ping either"):
                ping(each)
        assert receiver.posts == []
        assert not DeliveryAttempt.objects.exists()
        change_status(subscription, Status.SUBSCRIBED, reason="operator")
        assert ping(subscription).status_code == 200

    def test_not_a_pending_one_before_its_handshake(self, receiver: Receiver) -> None:
        subscription = subscribe(receiver, handshake=Handshake.HOOK_SECRET)
        with pytest.raises(IllegalStatusChange, match="handshake"):
            ping(subscription)
        assert receiver.posts == []

    def test_not_an_unsubscribed_one_whatever_the_caller_believes(self, receiver: Receiver) -> None:
        subscription = subscribe(receiver)
        stale = SubscriptionModel.objects.get()
        change_status(subscription, Status.UNSUBSCRIBED, reason="client")
        with pytest.raises(IllegalStatusChange):
            ping(stale)
        assert receiver.posts == []
        assert not DeliveryAttempt.objects.exists()

    def test_not_a_deleted_one(self, receiver: Receiver) -> None:
        subscription = subscribe(receiver)
        SubscriptionModel.objects.get().delete()
        with pytest.raises(SubscriptionModel.DoesNotExist):
            ping(subscription)


class TestNothingIsSentUnsigned:
    def test_an_unreadable_secret_raises(self, receiver: Receiver) -> None:
        subscription = subscribe(receiver)
        SigningSecret.objects.update(value=Sealed("unreadable"))
        self.refused(subscription, receiver)

    def test_an_unreadable_old_secret_raises_too(self, receiver: Receiver) -> None:
        subscription = subscribe(receiver)
        SigningSecret.objects.update(value=Sealed("unreadable"))
        rotate_secret(subscription)
        self.refused(subscription, receiver)

    def test_so_does_none(self, receiver: Receiver) -> None:
        subscription = subscribe(receiver)
        SigningSecret.objects.all().delete()
        self.refused(subscription, receiver)

    def test_so_does_one_that_is_no_secret(self, receiver: Receiver) -> None:
        subscription = subscribe(receiver)
        SigningSecret.objects.update(value="whsec_short")
        self.refused(subscription, receiver)

    def test_so_do_headers_that_cannot_be_read(self, receiver: Receiver) -> None:
        subscription = subscribe(receiver, headers={"X-Mine": "1"})
        SubscriptionModel.objects.update(headers=Sealed("unreadable"))
        self.refused(subscription, receiver)

    def test_so_does_a_service_without_keys(self, receiver: Receiver, configure: Any) -> None:
        subscription = subscribe(receiver)
        configure(ENCRYPTION_KEYS=[])
        self.refused(subscription, receiver)

    @staticmethod
    def refused(subscription: SubscriptionModel, receiver: Receiver) -> None:
        with pytest.raises(SecretUnreadable):
            ping(subscription)
        assert receiver.posts == []
        assert not DeliveryAttempt.objects.exists()


class TestManyAtOnce:
    def test_one_that_hangs_holds_up_no_other(
        self, receiver: Receiver, receivers: Callable[..., Receiver]
    ) -> None:
        released = threading.Event()

        def wait(post: Any) -> Answer:
            released.wait(20)
            return Answer()

        slow = receivers(wait)
        hanging, quick = subscribe(slow), subscribe(receiver)
        with in_background(ping, hanging) as first:
            slow.wait_for(1)
            assert ping(quick).status_code == 200
            assert not first.done()
            released.set()
        assert first.result().status_code == 200

    def test_no_thread_stays_behind(self, receiver: Receiver) -> None:
        subscription = subscribe(receiver)
        before = _posting()  # those of the drains that other tests have run
        ping(subscription)
        assert not _posting() - before


def _posting() -> set[threading.Thread]:
    """The threads in which POSTs are sent."""
    return {each for each in threading.enumerate() if each.name.startswith("webhooks-post")}
