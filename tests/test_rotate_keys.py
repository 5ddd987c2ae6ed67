"""``webhooks_rotate_keys``: everything comes under the newest key, while the service goes on."""

from __future__ import annotations

import os
import re
import signal
import time
from contextlib import ExitStack
from io import StringIO
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.core.management import CommandError, call_command
from django.db import transaction

from tests import world
from tests.world import Receiver, deliver, emit_orders, in_background, states, subscribe, until
from webhooks import crypto, lifecycle
from webhooks.clock import db_now
from webhooks.crypto import is_current
from webhooks.formats.signing import generate_secret
from webhooks.headers import headers_of
from webhooks.management.commands import webhooks_rotate_keys as command
from webhooks.models import Lane, SigningSecret, Subscription
from webhooks.models.fields import SealedField
from webhooks.receiving import verify

OLD, NEW, OTHER = (Fernet.generate_key().decode() for _ in range(3))
HEADERS = {"X-Token": "hush-hush-token"}
BASIC_AUTH = "user:hush-hush-password"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def keys(settings: Any) -> Any:
    def use(*keys: str) -> None:
        settings.WEBHOOKS = {**settings.WEBHOOKS, "ENCRYPTION_KEYS": list(keys)}

    use(OLD)
    return use


def make(count: int = 1) -> list[Subscription]:
    """Subscriptions with one value of each kind."""
    return [
        Subscription.objects.subscribe(
            requester="app:a",
            callback_url="http://127.0.0.1:9/in",
            event_types=["order.*"],
            headers=HEADERS,
            basic_auth=BASIC_AUTH,
        )[0]
        for _ in range(count)
    ]


def rotate(**options: Any) -> tuple[str, str]:
    """What the command says, and what it complains of; its error is the last thing of those."""
    out, err = StringIO(), StringIO()
    try:
        call_command("webhooks_rotate_keys", stdout=out, stderr=err, **options)
    except CommandError as error:
        err.write(str(error))
    return out.getvalue(), err.getvalue()


def stored() -> dict[tuple[str, str], str]:
    """Every ciphertext there is, by column and key; found without the command's help."""
    return {
        (f"{model.__name__}.{name}", row["pk"]): row[name].ciphertext
        for model, names in ((Subscription, ("headers", "basic_auth")), (SigningSecret, ("value",)))
        for name in names
        for row in model.objects.exclude(**{name: ""}).values("pk", name)
    }


def test_every_sealed_column_is_known() -> None:
    columns = {f"{field.model.__name__}.{field.name}" for field in command.sealed_fields()}
    assert columns == {"Subscription.headers", "Subscription.basic_auth", "SigningSecret.value"}
    assert all(isinstance(field, SealedField) for field in command.sealed_fields())


def test_everything_comes_under_the_newest_key_and_says_the_same(keys: Any) -> None:
    made = make(2)
    lifecycle.rotate_secret(made[0])  # an old secret that still signs, and one that does not
    texts = {place: crypto.unseal(each) for place, each in stored().items()}
    assert len(texts) == 7
    before = Subscription.objects.values("pk", "updated_at", "lane__control")
    untouched = list(before.order_by("pk"))
    keys(NEW, OLD)
    out, err = rotate()
    assert err == ""
    assert out.count("sealed anew") == 3
    assert "SigningSecret.value: 3 looked at, 3 sealed anew" in out
    keys(NEW)
    assert {place: crypto.unseal(each) for place, each in stored().items()} == texts
    # Nobody has to hear of it: what is sealed is the same.
    assert list(before.order_by("pk")) == untouched
    assert rotate(check=True)[1] == ""


def test_a_second_run_writes_nothing(keys: Any) -> None:
    make()
    keys(NEW, OLD)
    rotate()
    before = stored()
    out, _err = rotate()
    assert stored() == before
    assert "sealed anew" not in out
    assert "under the newest key before" in out


def test_what_was_sealed_before_under_the_same_key_is_left_alone(keys: Any) -> None:
    make()
    before = stored()
    rotate()
    assert stored() == before


def test_a_check_counts_changes_nothing_and_fails_while_there_is_something_left(keys: Any) -> None:
    make()
    keys(NEW, OLD)
    before = stored()
    out, err = rotate(check=True)
    assert stored() == before
    assert out.count("1 under an older key") == 3
    assert "3 values are not under the newest key" in err
    rotate()
    out, err = rotate(check=True)
    assert err == ""
    assert "Everything is sealed under the newest key" in out


@pytest.mark.parametrize("check", [False, True])
def test_what_no_key_opens_is_named_by_its_id_and_the_others_are_done(
    check: bool, keys: Any
) -> None:
    keys(OTHER)
    [lost] = make()
    keys(OLD)
    make()
    keys(NEW, OLD)
    _out, err = rotate(check=check)
    assert f"webhooks.Subscription.headers of {lost.pk}: no key opens it" in err
    assert f"webhooks.Subscription.basic_auth of {lost.pk}: no key opens it" in err
    assert f"webhooks.SigningSecret.value of {lost.secrets.get().pk}: no key opens it" in err
    assert "3 values are opened by no key" in err
    assert sum(is_current(each) for each in stored().values()) == (0 if check else 3)
    # The ids are all that is shown.
    for place, each in stored().items():
        assert each not in err, place
    for text in ("hush-hush", "whsec_", OLD, NEW):
        assert text not in err


@pytest.mark.parametrize(
    ("configured", "told"),
    [([], "ENCRYPTION_KEYS'] is empty"), (["nonsense"], "no Fernet key"), (OLD, "no Fernet key")],
    ids=["none", "nonsense", "a text for a list"],
)
def test_without_usable_keys_it_says_so_and_does_nothing(
    configured: Any, told: str, keys: Any, settings: Any
) -> None:
    make()
    before = stored()
    settings.WEBHOOKS = {**settings.WEBHOOKS, "ENCRYPTION_KEYS": configured}
    _out, err = rotate()
    assert told in err
    assert stored() == before


def test_nothing_stored_is_nothing_to_do() -> None:
    out, err = rotate()
    assert (out.count("none"), err) == (3, "")


def test_more_than_a_batch_is_done_in_batches(keys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    make(5)
    monkeypatch.setattr(command, "BATCH", 2)
    keys(NEW, OLD)
    out, _err = rotate()
    assert re.findall(r"SigningSecret.value: (\d+) looked at", out) == ["2", "4", "5"]
    assert all(is_current(each) for each in stored().values())


def test_a_change_that_is_made_meanwhile_is_never_undone(
    keys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    [subscription] = make()
    keys(NEW, OLD)
    real = crypto.reseal
    changes = [{"X-Token": "first-new-token"}, {"X-Token": "second-new-token"}]

    def late(ciphertext: str) -> str:
        # Between the reading of the old value and the writing of it, somebody sets another one;
        # with an older process's keys, so that it is to be done as well.
        done = real(ciphertext)
        if changes and "X-Token" in crypto.unseal(ciphertext):
            keys(OLD)
            lifecycle.update(Subscription.objects.get(), headers=changes.pop(0))
            keys(NEW, OLD)
        return done

    monkeypatch.setattr(command, "reseal", late)
    _out, err = rotate()
    assert (changes, err) == ([], "")
    keys(NEW)
    subscription.refresh_from_db()
    assert headers_of(subscription)["X-Token"] == "second-new-token"


def test_a_value_that_never_stands_still_is_reported(
    keys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    make()
    keys(NEW, OLD)

    def late(ciphertext: str) -> str:
        keys(OLD)
        SigningSecret.objects.update(value=generate_secret())
        keys(NEW, OLD)
        return crypto.reseal(ciphertext)

    monkeypatch.setattr(command, "reseal", late)
    _out, err = rotate()
    assert "Run webhooks_rotate_keys again" in err


def test_rows_that_go_away_meanwhile_do_no_harm(keys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    make()
    keys(NEW, OLD)

    def late(ciphertext: str) -> str:
        SigningSecret.objects.all().delete()
        return crypto.reseal(ciphertext)

    monkeypatch.setattr(command, "reseal", late)
    assert rotate()[1] == ""


def test_it_waits_for_whoever_writes_the_row_and_then_respects_that(keys: Any) -> None:
    [subscription] = make()
    keys(NEW, OLD)
    with ExitStack() as writing:
        writing.enter_context(transaction.atomic())
        Lane.objects.lock_one(subscription.pk)
        Subscription.objects.filter(pk=subscription.pk).update(basic_auth="user:another-password")
        with in_background(rotate) as told:
            time.sleep(0.3)
            assert not told.done()
            writing.close()
            assert told.result(30)[1] == ""
    keys(NEW)
    assert Subscription.objects.get().basic_auth.reveal() == "user:another-password"


def test_a_run_that_is_killed_is_gone_on_with(keys: Any, start: Any) -> None:
    [subscription] = make()
    SigningSecret.objects.bulk_create(
        SigningSecret(subscription=subscription, value=f"whsec_{i:04}", last_four="aaaa")
        for i in range(3000)
    )
    texts = {place: crypto.unseal(each) for place, each in stored().items()}
    keys(NEW, OLD)
    with_both = {"ENCRYPTION_KEYS": [NEW, OLD]}
    process = start("webhooks_rotate_keys", settings=with_both)
    first = SigningSecret.objects.order_by("pk")

    def begun() -> bool:
        return is_current(first.values_list("value", flat=True)[50].ciphertext)

    until(begun, 60, "the first values under the new key")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)
    done = {place for place, each in stored().items() if is_current(each)}
    assert 50 <= len(done) < len(texts), "it was killed in the middle"
    half = stored()
    out, err = rotate()
    assert err == ""
    after = stored()
    assert all(after[place] == half[place] for place in done), "what was done is skipped"
    assert f"{len(texts) - len(done)}" in "".join(re.findall(r"\d+ sealed anew", out)[-1])
    keys(NEW)
    assert {place: crypto.unseal(each) for place, each in after.items()} == texts


@pytest.fixture
def start() -> Any:
    started: list[Any] = []

    def start_(*arguments: str, **options: Any) -> Any:
        started.append(world.start(*arguments, **options))
        return started[-1]

    yield start_
    for process in started:
        process.kill()
        process.wait(10)


def test_deliveries_go_out_signed_before_during_and_after(
    keys: Any, receiver: Receiver, start: Any
) -> None:
    subscription = subscribe(receiver, headers=HEADERS, basic_auth=BASIC_AUTH)
    [row] = SigningSecret.objects.filter(subscription=subscription)
    secret = row.value.reveal()
    keys(NEW, OLD)

    def one_more(posts: int) -> None:
        emit_orders(1)
        receiver.wait_for(posts)

    # A worker that keeps the lane in its memory all the while.
    worker = start("webhooks_worker", settings={"ENCRYPTION_KEYS": [NEW, OLD]})
    one_more(1)
    control = Lane.objects.get().control
    assert not any(is_current(each) for each in stored().values())
    with in_background(rotate) as told:
        one_more(2)
        assert told.result(30)[1] == ""
    assert all(is_current(each) for each in stored().values())
    one_more(3)
    assert Lane.objects.get().control == control
    os.killpg(worker.pid, signal.SIGTERM)
    worker.wait(30)
    # The old key is gone, for a worker that never knew it.
    keys(NEW)
    start("webhooks_worker", settings={"ENCRYPTION_KEYS": [NEW]})
    one_more(4)
    until(lambda: states() == {"delivered": 4})
    for post in receiver.posts:
        assert verify(post.body, post.headers, secret)["id"] == post.id
        assert post.headers["x-token"] == HEADERS["X-Token"]
        assert post.headers["authorization"].startswith("Basic ")


def test_with_the_old_key_alone_everything_waits(keys: Any, receiver: Receiver) -> None:
    subscribe(receiver, headers=HEADERS)
    keys(NEW, OLD)
    rotate()
    keys(OLD)
    emit_orders(1)
    deliver()
    assert receiver.posts == []
    assert Lane.objects.get().pause_reason == "secret_unreadable"
    keys(NEW)
    Lane.objects.update(paused_until=None, claim_at=db_now("default"))
    deliver()
    assert states() == {"delivered": 1}
